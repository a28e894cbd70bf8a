"""Our columns of every frame of a file, as rows in Python, and what they add up to."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.fragments import Reassembler
from stratokit.dissect.packets import dissect
from stratokit.formats.frames import FrameBatch
from stratokit.streams.community_id import community_ids

Row = dict[str, Any]
NAMING = ("src_ip", "dst_ip", "src_port", "dst_port", "ip_proto", "icmp_type", "icmp_code")
FIN, SYN, RST = 1, 2, 4


def decode(batch: FrameBatch, reassembler: Reassembler) -> list[Row]:
    """Columns of each frame; of a packet put together the length of its payload."""
    found = dissect(batch.data, batch.offsets, batch.cap_lens, batch.orig_lens, batch.link_types)
    # tshark waits for fragments without end: no time passes here.
    whole = reassembler.feed(found, batch.data, batch.offsets, np.zeros(len(batch.offsets), np.int64))
    columns = packet_columns(found, datagrams=whole)
    columns |= {"orig_len": pa.array(batch.orig_lens), "cap_len": pa.array(batch.cap_lens)}
    table = pa.table(list(columns.values()), list(columns))
    frame = pl.DataFrame(pl.from_arrow(table.select(NAMING)))
    rows: list[Row] = table.append_column("community_id", [community_ids(frame).to_list()]).to_pylist()
    for row in rows:
        if row["datagram"] is not None:
            row["datagram"] = len(row["datagram"]) - (20 if row["datagram"][0] >> 4 == 4 else 40)
    return rows


def ends(row: Row) -> frozenset[tuple[str, int]]:
    """Both ends of TCP as the kept facts name them: of addresses in both versions by those of IPv4."""
    tunnel = "outer_" if row["ip_version"] == 6 and "." in (row["outer_src_ip"] or "") else ""
    names = (row[f"{tunnel}src_ip"], row["src_port"]), (row[f"{tunnel}dst_ip"], row["dst_port"])
    return frozenset(names)


def conversations(rows: list[Row]) -> dict[Any, list[int]]:
    """By both ends of TCP: frames, bytes, payload, FIN, SYN, RST."""
    sums: dict[Any, list[int]] = collections.defaultdict(lambda: [0] * 6)
    for row in rows:
        if row["ip_proto"] != 6 or row["src_port"] is None:
            continue
        flags = row["tcp_flags"] or 0
        values = (1, row["orig_len"], row["payload_len"] or 0, flags & FIN, flags & SYN, flags & RST)
        for k, value in enumerate(values):
            sums[ends(row)][k] += bool(value) if k > 2 else value
    return dict(sums)
