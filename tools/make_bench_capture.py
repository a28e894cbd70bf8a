#!/usr/bin/env python3
"""Make a large pcap of the real traffic in sample_captures/: the input of benchmarks/bench_engine.py.

    tools/make_bench_capture.py big.pcap [--bytes 1e9] [--overlap 8] [--samples dns-failures]

1. Frames of all samples get an Ethernet header. TCP payload that was recorded before segmentation is divided
   into segments of 1460 bytes, as a network card would; checksums, which the kernel had left to the card, are
   computed.
2. That block is copied until the file has its size. In each copy every sample has a client address of its own
   (10.0.0.0/8, counted up), so that conversations of copies never merge, and begins later; `--overlap` copies
   are on the way at once, their packets merged in order of time.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stratokit.engine.capture import Capture
from stratokit.formats.events import gather

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "sample_captures"
ETHERNET, TCP, UDP = 14, 6, 17
MSS = 1460
PSH_FIN = 0x09
SERVER = bytes((172, 16, 0, 1))
CLIENTS = 10 << 24


def folded(data: bytes) -> int:
    """Ones' complement sum of 16-bit words (RFC 1071)."""
    data += bytes(len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def segments(packet: bytes) -> Iterator[bytes]:
    """IPv4 packets that are no longer than the largest segment."""
    header = (packet[0] & 15) * 4
    start = header + (packet[header + 12] >> 4) * 4 if packet[9] == TCP else len(packet)
    if len(packet) - start <= MSS:
        yield packet
        return
    (sequence,) = struct.unpack_from("!I", packet, header + 4)
    for at in range(start, len(packet), MSS):
        part = bytearray(packet[:start] + packet[at : at + MSS])
        struct.pack_into("!H", part, 2, len(part))
        struct.pack_into("!I", part, header + 4, (sequence + at - start) & 0xFFFFFFFF)
        if at + MSS < len(packet):
            part[header + 13] &= ~PSH_FIN
        yield bytes(part)


def addressed(packet: bytes, client: int, outward: bool) -> bytes:
    """The packet between this client and the server, with checksums; `outward` when the client sent it."""
    part, header = bytearray(packet), (packet[0] & 15) * 4
    ends = (client.to_bytes(4, "big"), SERVER)
    part[12:20] = b"".join(ends if outward else ends[::-1])
    part[10:12] = bytes(2)
    struct.pack_into("!H", part, 10, ~folded(bytes(part[:header])) & 0xFFFF)
    at = header + (16 if part[9] == TCP else 6)
    part[at : at + 2] = bytes(2)
    pseudo = bytes(part[12:20]) + struct.pack("!HH", part[9], len(part) - header)
    struct.pack_into("!H", part, at, ~folded(pseudo + bytes(part[header:])) & 0xFFFF or 0xFFFF)
    return bytes(ETHERNET - 2) + b"\x08\x00" + bytes(part)


def sample_packets(sample: Path) -> pl.DataFrame:
    """Every TCP and UDP packet once, in order: ts (ns), data, outward (the client of its flow sent it)."""
    capture = Capture.open(sample)
    packets = (
        capture.table("packets").filter(pl.col("ip_proto").is_in((TCP, UDP))).unique("frame", keep="first")
    )
    flows = capture.table("flows").select("flow_id", "client_ip", "client_port")
    outward = (pl.col("src_ip") == pl.col("client_ip")) & (pl.col("src_port") == pl.col("client_port"))
    rows = packets.join(flows, on="flow_id", how="inner").sort("frame")
    data = pl.scan_parquet(sample).filter(kind="packet").select("frame", "data").unique("frame", keep="first")
    rows = rows.select("frame", pl.col("ts").to_physical(), outward.alias("outward"))
    return rows.join(data, on="frame", maintain_order="left").select("ts", "data", "outward").collect()


class Block:
    """All samples once, on one time line; arrays have one element a frame."""

    def __init__(self, samples: str) -> None:
        frames, times, positions, clients, checks = [], [], [], [], []
        self.samples = sorted(SAMPLES.glob(f"{samples}.parquet"))
        for number, sample in enumerate(self.samples):
            packets = sample_packets(sample)
            origin = packets["ts"].min()
            for ts, data, outward in packets.iter_rows():
                for part in segments(data):
                    frame = addressed(part, CLIENTS + number, outward)
                    times.append(ts - origin)
                    positions.append(ETHERNET + (12 if outward else 16))
                    checks.append(ETHERNET + (part[0] & 15) * 4 + (16 if part[9] == TCP else 6))
                    clients.append(number)
                    frames.append(frame)
        order = np.argsort(times, kind="stable")
        self.times = np.array(times)[order]
        self.clients = np.array(clients)[order]
        self.lengths = np.array([len(frame) for frame in frames])[order]
        self.ends = np.cumsum(self.lengths + 16)
        self.starts = self.ends - self.lengths
        self.addresses = self.starts + np.array(positions)[order]
        self.checks = self.starts + np.array(checks)[order]
        lens = np.repeat(self.lengths.astype("<u4"), 2).reshape(-1, 2)
        parts = [bytes(8) + lens[i].tobytes() + frames[order[i]] for i in range(len(frames))]
        self.data = np.frombuffer(b"".join(parts), np.uint8)
        self.span = int(self.times[-1])

    def copy(self, number: int, shift_ns: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Times and bytes of copy `number`, `shift_ns` later: RFC 1624 keeps checksums right."""
        data = self.data.copy()
        address = CLIENTS + number * len(self.samples) + self.clients
        for k in range(4):
            data[self.addresses + k] = address >> 24 - 8 * k & 255
        before = CLIENTS + self.clients
        change = (address >> 16) + (address & 0xFFFF) + (~(before >> 16) & 0xFFFF) + (~before & 0xFFFF)
        for at in (self.starts + ETHERNET + 10, self.checks):
            total = (~(data[at].astype(np.int64) << 8 | data[at + 1]) & 0xFFFF) + change
            for _ in range(3):
                total = (total & 0xFFFF) + (total >> 16)
            data[at], data[at + 1] = ~total >> 8 & 255, ~total & 255
        times = self.times + shift_ns
        for at, value in ((-16, times // 10**9), (-12, times % 10**9)):
            for k in range(4):
                data[self.starts + at + k] = value >> 8 * k & 255
        return times, data


def make(path: Path, size: int, overlap: int, samples: str) -> tuple[int, int]:
    """Write the file; returns its packets and bytes."""
    block = Block(samples)
    step = block.span // overlap + 1
    begin = 1_700_000_000 * 10**9
    written = packets = number = 0
    held_times, held_starts, held_lengths = (np.empty(0, np.int64) for _ in range(3))
    held = np.empty(0, np.uint8)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        while written < size:
            times, data = block.copy(number, begin + number * step)
            number += 1
            held_starts = np.concatenate([held_starts, len(held) + block.starts - 16])
            held_times = np.concatenate([held_times, times])
            held_lengths = np.concatenate([held_lengths, block.lengths + 16])
            held = np.concatenate([held, data])
            # No later copy has a packet before it begins itself.
            last = written + len(held) >= size
            ready = np.ones(len(held_times), bool) if last else held_times < begin + number * step
            chosen = np.flatnonzero(ready)
            chosen = chosen[np.argsort(held_times[chosen], kind="stable")]
            out, _ = gather(held, held_starts[chosen], held_lengths[chosen])
            file.write(out.data)
            written += len(out)
            packets += len(chosen)
            held, ends = gather(held, held_starts[~ready], held_lengths[~ready])
            held_times, held_lengths = held_times[~ready], held_lengths[~ready]
            held_starts = ends[:-1]
    return packets, written + 24


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--bytes", type=float, default=1e9, help="at least this many")
    parser.add_argument("--overlap", type=int, default=8, help="copies that are on the way at once")
    parser.add_argument("--samples", default="*", help="pattern of the samples' names")
    arguments = parser.parse_args()
    packets, size = make(arguments.output, int(arguments.bytes), arguments.overlap, arguments.samples)
    print(f"{arguments.output}: {packets} packets, {size} bytes")


if __name__ == "__main__":
    main()
