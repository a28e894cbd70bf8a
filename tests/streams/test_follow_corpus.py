"""Every TCP stream of real captures as `tshark -z follow,tcp,raw` prints it, byte for byte.

`make oracle` takes all files, an ordinary run a fixed part of them. One run of tshark prints all of a file.
Rules by which the two differ, told by what is in the capture (docs/tcp.md):

- VLANs and tunnels keep conversations apart here; what is between ends in several of them is left out.
- What is in a tunnel that is not decoded here is no conversation.
- tshark gives up a packet with malformed IPv4 options, which we do not look into: its ends are left out.
- Of a connection whose segments all have a contradictory header, or payload of which nothing was captured,
  tshark prints a stream without ends.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from typing import Any

import polars as pl
import pytest
from helpers.corpus import CORPUS, MARKS, files
from helpers.tshark import need

from stratokit.engine.capture import Capture
from stratokit.errors import StratokitError
from stratokit.render.follow import lines
from stratokit.streams.follow import follow

pytestmark = MARKS
TROUBLE = ("retransmission", "out_of_order", "lost_segment", "ip-frag", "vlan", "ipv6")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" not in metafunc.fixturenames:
        return
    chosen = everything = files("tcp")
    if not metafunc.config.getoption("--whole-corpus"):
        troubled = {name for tag in TROUBLE for name in [n for n in files(tag) if n in set(everything)][:8]}
        chosen = [n for number, n in enumerate(everything) if n in troubled or number % 24 == 0]
    metafunc.parametrize("name", chosen)


class Read:
    """Packets of a capture, read once."""

    def __init__(self, packets: pl.DataFrame) -> None:
        self.packets = packets

    def rows(self, kind: str) -> pl.LazyFrame:
        assert kind == "packet"
        return self.packets.lazy()


def test_every_byte_is_as_tshark_prints_it(name: str) -> None:
    try:
        capture = Capture.open(CORPUS / name)
    except StratokitError as error:
        pytest.skip(f"no reader: {error}")
    facts = json.loads((CORPUS / f"{name}.oracle.json").read_text())
    packets = (
        capture.rows("packet").filter(pl.col("ip_proto") == 6, pl.col("flow_id").is_not_null()).collect()
    )
    if packets.is_empty() and set(capture.table("packets").select("stop_layer").collect().to_series()) - {
        None
    }:
        return
    captured = pl.coalesce(pl.col("datagram").bin.size(), "cap_len")
    told = (pl.col("payload_offset") < captured) | (pl.col("payload_len") == 0)
    known = packets.group_by("flow_id").agg(told.any().fill_null(value=False).alias("told")).sort("flow_id")
    flows = known.filter("told")["flow_id"].to_list()
    ours = ["\n".join(lines(follow(Read(packets), flow), "raw")) + "\n" for flow in flows]
    theirs = followed_by_tshark(name, max(facts["tcp"]["streams"], known.height))
    if left_out := ends_of(packets, facts["malformed_frames"]):
        ours, theirs = without(ours, left_out), without(theirs, left_out)
    assert sorted(ours) == sorted(theirs)


def followed_by_tshark(name: str, streams: int) -> list[str]:
    """What is printed of each stream, without those that have no ends."""
    asked = [word for number in range(streams) for word in ("-z", f"follow,tcp,raw,{number}")]
    command = [need("tshark"), "-n", "-q", "-r", str(CORPUS / name), *asked]
    printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout
    parts = re.split(r"(?=\n={67}\nFollow: tcp)", printed)[1:]
    return [part for part in parts if "\nNode 0: :0\n" not in part]


def ends_of(packets: pl.DataFrame, malformed_frames: list[int]) -> set[frozenset[str]]:
    """Pairs of ends to which a rule applies that leaves them out."""
    ends = [pl.format("{}:{}", f"{side}_ip", f"{side}_port").alias(side) for side in ("src", "dst")]
    place = pl.struct("vlan", "tunnel", "tunnel_id").alias("place")
    rows = packets.group_by("flow_id").agg(place.first(), *(end.first() for end in ends))
    places: dict[frozenset[str], set[Any]] = {}
    for _, at, *pair in rows.iter_rows():
        places.setdefault(frozenset(pair), set()).add(tuple(at.values()))
    several = {pair for pair, found in places.items() if len(found) > 1}
    options = (pl.col("link_type") == 1) & (pl.col("ip_version") == 4) & (pl.col("data").bin.get(14) & 15 > 5)
    given_up = packets.filter(options, pl.col("frame").is_in(malformed_frames)).select(ends)
    return several | {frozenset(pair) for pair in given_up.iter_rows()}


def without(streams: Iterable[str], left_out: set[frozenset[str]]) -> list[str]:
    """Streams between other ends, without the numbers that count all of them."""
    kept = []
    for text in streams:
        nodes = re.findall(r"^Node [01]: (.*)$", text, re.MULTILINE)
        if frozenset(re.sub(r"[\[\]]", "", node) for node in nodes) not in left_out:
            kept.append(re.sub(r"(?m)^Filter: .*$", "", text))
    return kept
