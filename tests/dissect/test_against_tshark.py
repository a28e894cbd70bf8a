"""Columns of frames that were made at random against tshark's fields of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import frames
from helpers.decoded import decode
from helpers.tshark_columns import differences
from helpers.tshark_layers import said

from stratokit.dissect.fragments import Reassembler
from stratokit.formats.pcap import PcapReader


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
