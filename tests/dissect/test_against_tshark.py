"""Columns of real captures against tshark's fields of the same frames: addresses, ports, flags, lengths.

Both look at each frame alone, without putting fragments together. Frames with tunnels are compared by their
outermost IP header only, as far as decoding goes today.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import frames, tshark
from helpers.pcapng_bytes import Section

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.packets import dissect
from stratokit.formats import registry
from stratokit.formats.frames import FrameBatch
from stratokit.formats.pcap import PcapReader

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"

FIELDS = (
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "ip.ttl",
    "ipv6.hlim",
    "ip.id",
    "ip.frag_offset",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "tcp.flags",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.window_size_value",
    "tcp.len",
    "icmp.type",
    "icmp.code",
    "icmpv6.type",
    "icmpv6.code",
    "vlan.id",
    "_ws.malformed",
)
LINKS = {"eth", "sll", "raw", "null", "loop"}
NETWORKS = {"ip", "ipv6"}
PASSED = {"ethertype", "vlan", "ieee8021ad", "llc", "ethtrailer", "pkt_comment", "frame"}
# Between the network layer and the transport layer these are ours to pass.
EXTENSIONS = {"ipv6.hopopts", "ipv6.routing", "ipv6.fraghdr", "ipv6.dstopts", "ah", "mipv6", "hip", "shim6"}


def decode(batch: FrameBatch) -> list[dict[str, Any]]:
    """Our columns of every packet of a batch."""
    found = packet_columns(
        dissect(batch.data, batch.offsets, batch.cap_lens, batch.orig_lens, batch.link_types)
    )
    return pa.table(list(found.values()), list(found)).to_pylist()


def number(text: str) -> int | None:
    return int(text, 0) if text else None


def expected(values: tuple[str, ...]) -> dict[str, Any]:
    """What tshark says, by our names; only what it is sure of."""
    said = dict(zip(FIELDS, values, strict=True))
    # tshark numbers nothing twice: layers below the first IP header, then the first transport after it.
    stack = [p for p in said["frame.protocols"].split(":") if p not in PASSED]
    if not stack or (stack[0] not in LINKS and stack[0] not in NETWORKS):
        return {}
    stack = [p for p in stack if p not in LINKS]
    if not stack or stack[0] not in NETWORKS:
        return {}
    six = stack[0] == "ipv6"
    row: dict[str, Any] = {
        "ip_version": 6 if six else 4,
        "src_ip": said["ipv6.src" if six else "ip.src"],
        "dst_ip": said["ipv6.dst" if six else "ip.dst"],
        "ip_ttl": number(said["ipv6.hlim" if six else "ip.ttl"]),
        "ip_id": None if six else number(said["ip.id"]),
    }
    above = [p for p in stack[1:] if p not in EXTENSIONS]
    if said["_ws.malformed"] or not above or (not six and number(said["ip.frag_offset"])):
        return row
    if above[0] == "tcp":
        row |= {
            "ip_proto": 6,
            "src_port": number(said["tcp.srcport"]),
            "dst_port": number(said["tcp.dstport"]),
            "tcp_flags": None if not said["tcp.flags"] else number(said["tcp.flags"]) & 0x1FF,  # type: ignore[operator]
            "tcp_seq": number(said["tcp.seq_raw"]),
            "tcp_ack": number(said["tcp.ack_raw"]),
            "tcp_window": number(said["tcp.window_size_value"]),
        }
        if said["tcp.len"]:
            row["payload_len"] = number(said["tcp.len"])
    elif above[0] in ("udp", "sctp"):
        row |= {
            "ip_proto": 17 if above[0] == "udp" else 132,
            "src_port": number(said[above[0] + ".srcport"]),
            "dst_port": number(said[above[0] + ".dstport"]),
        }
    elif above[0] in ("icmp", "icmpv6"):
        row |= {
            "ip_proto": 1 if above[0] == "icmp" else 58,
            "icmp_type": number(said[above[0] + ".type"]),
            "icmp_code": number(said[above[0] + ".code"]),
        }
    return row


def differences(row: dict[str, Any], values: tuple[str, ...]) -> list[str]:
    """What differs between our row of a frame and tshark's values."""
    found = []
    for name, value in expected(values).items():
        if row[name] == value:
            continue
        # Of a header that is cut or whose length cannot be, tshark shows less than the bytes that are there,
        # and takes a payload to follow it.
        if row["stop_reason"] in ("length", "snaplen") and (not value or name == "payload_len"):
            continue
        # tshark holds lengths in 31 bits.
        if name == "payload_len" and (row[name] or 0) > 2**31:
            continue
        found.append(f"({values[0]}): {name} is {row[name]!r}, tshark says {value!r}")
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
        rows = [row for batch in reader.batches() for row in decode(batch)]
    pairs = zip(rows, tshark.fields(path, *FIELDS), strict=True)
    assert [line for row, values in pairs for line in differences(row, values)] == []


# Formats that are not packets of libpcap's kind, and files that tshark does not take.
OTHER_FORMATS = {"scap-LE", "gz:scap-LE", "snoop"}
OTHER_TAGS = {"REFUSED-BY-TSHARK", "link:unknown"}


def gather(paths: list[Path], merged: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Put all frames into one file, so that tshark starts once; where each is from, and our row of it."""
    section = Section()
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    link_types: dict[int, int] = {}
    with merged.open("wb") as out:
        out.write(section.header())
        for path in paths:
            with registry.by_content(path).open_reader(path) as reader:
                for batch in reader.batches():
                    rows += decode(batch)
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


@pytest.mark.corpus
@pytest.mark.slow
def test_corpus(tmp_path: Path) -> None:
    manifest = CORPUS / "MANIFEST.jsonl"
    if not manifest.exists():
        pytest.skip(f"no captures at {CORPUS}")
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    paths = [
        CORPUS / entry["file"]
        for entry in entries
        if entry["kind"] not in OTHER_FORMATS and not OTHER_TAGS & set(entry["tags"])
    ]
    names, rows = gather(paths, tmp_path / "all.pcapng")
    said = tshark.fields(tmp_path / "all.pcapng", *FIELDS)
    pairs = zip(names, rows, said, strict=True)
    wrong = [f"{name} {line}" for name, row, values in pairs for line in differences(row, values)]
    assert len(rows) > 50_000
    assert wrong == []
