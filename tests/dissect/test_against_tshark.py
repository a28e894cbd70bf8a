"""Columns of real captures against tshark's fields of the same frames: addresses, ports, flags, lengths,
options, tunnels. Both put fragments together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import frames
from helpers.pcapng_bytes import Section
from helpers.tshark_layers import expected, said

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.fragments import Reassembler
from stratokit.dissect.packets import dissect
from stratokit.formats import registry
from stratokit.formats.frames import FrameBatch
from stratokit.formats.pcap import PcapReader

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


def decode(batch: FrameBatch, reassembler: Reassembler) -> list[dict[str, Any]]:
    """Our columns of every packet of a batch."""
    found = dissect(batch.data, batch.offsets, batch.cap_lens, batch.orig_lens, batch.link_types)
    # tshark waits for fragments without end: no time passes here.
    whole = reassembler.feed(found, batch.data, batch.offsets, np.zeros(len(batch.offsets), np.int64))
    columns = packet_columns(found, datagrams=whole)
    return pa.table(list(columns.values()), list(columns)).to_pylist()


def differences(row: dict[str, Any], values: dict[str, list[str]]) -> list[str]:
    """What differs between our row of a frame and tshark's values."""
    found = []
    for name, value in expected(values).items():
        if row[name] == value:
            continue
        # Of a header that is cut or whose length cannot be, tshark shows less than the bytes that are there,
        # and takes a payload to follow it.
        if row["stop_reason"] in ("length", "snaplen") and (not value or name == "payload_len"):
            continue
        # Of a tag that is cut tshark shows the half that is there.
        if name.startswith("vlan") and row["stop_layer"] == "vlan":
            continue
        # tshark holds lengths in 31 bits.
        if name == "payload_len" and (row[name] or 0) > 2**31:
            continue
        found.append(f"({values['frame.protocols'][0]}): {name} is {row[name]!r}, tshark says {value!r}")
    return found


def test_generated_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    layers = [frames.tcp, frames.udp, frames.icmp, frames.sctp]
    made = []
    for i in range(400):
        payload = rng.bytes(int(rng.integers(0, 60)))
        proto = [6, 17, 1, 132][i % 4]
        upper = layers[i % 4](payload)
        if i % 8 >= 4:
            proto = 58 if proto == 1 else proto
            if i % 3 == 0:
                upper, proto = frames.extension(upper, proto), 0
            packet, kind = frames.ipv6(upper, proto), 0x86DD
        else:
            packet, kind = frames.ipv4(upper, proto, options=bytes(4 * int(rng.integers(0, 3)))), 0x0800
        if i % 5 == 0:
            packet, kind = frames.vlan(packet, kind, i), 0x8100
        made.append(frames.eth(packet, kind))
    path = tmp_path / "x.pcap"
    path.write_bytes(frames.pcap(made))
    with PcapReader(path) as reader:
        rows = [row for batch in reader.batches() for row in decode(batch, Reassembler())]
    pairs = zip(rows, said(path), strict=True)
    assert [line for row, values in pairs for line in differences(row, values)] == []


# Formats that are not packets of libpcap's kind, and files that tshark does not take.
OTHER_FORMATS = {"scap-LE", "gz:scap-LE", "snoop"}
OTHER_TAGS = {"REFUSED-BY-TSHARK", "link:unknown"}


def gather(paths: list[Path], merged: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Put all frames into one file, so that tshark starts once; where each is from, and our row of it."""
    section, reassembler = Section(), Reassembler()
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    link_types: dict[int, int] = {}
    with merged.open("wb") as out:
        out.write(section.header())
        for path in paths:
            with registry.by_content(path).open_reader(path) as reader:
                for batch in reader.batches():
                    rows += decode(batch, reassembler)
                    for i, at in enumerate(batch.offsets.tolist()):
                        frame = batch.data[at : at + int(batch.cap_lens[i])].tobytes()
                        link_type = int(batch.link_types[i])
                        if link_type not in link_types:
                            link_types[link_type] = len(link_types)
                            out.write(section.interface(link_type=link_type))
                        size = int(batch.orig_lens[i])
                        out.write(section.packet(frame, interface=link_types[link_type], orig_len=size))
                        names.append(f"{path.name} frame {i + 1}")
    return names, rows


def compare_corpus(folder: Path) -> tuple[int, list[str]]:
    """How many frames there are, and what differs."""
    entries = [json.loads(line) for line in (CORPUS / "MANIFEST.jsonl").read_text().splitlines()]
    paths = [
        CORPUS / entry["file"]
        for entry in entries
        if entry["kind"] not in OTHER_FORMATS and not OTHER_TAGS & set(entry["tags"])
    ]
    names, rows = gather(paths, folder / "all.pcapng")
    pairs = zip(names, rows, said(folder / "all.pcapng"), strict=True)
    return len(rows), [f"{name} {line}" for name, row, values in pairs for line in differences(row, values)]


@pytest.mark.corpus
@pytest.mark.slow
def test_corpus(tmp_path: Path) -> None:
    if not (CORPUS / "MANIFEST.jsonl").exists():
        pytest.skip(f"no captures at {CORPUS}")
    count, wrong = compare_corpus(tmp_path)
    assert count > 50_000
    assert wrong == []
