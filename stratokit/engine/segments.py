"""Captures that are segments of one recording (`record --rotate-...`), read as the one that they are.

A conversation that goes on in the next segment keeps its number: it has the same ends, and its first packet
there does not begin a connection (TCP: no SYN; UDP and SCTP: no pause longer than `streams.flows` permits).
What each segment repeats of its surroundings stands once: processes, sockets, containers and interfaces. A
packet between two local sockets that left in one segment and arrived in the next stays two frames, and ICMP
exchanges across a border stay two.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import polars as pl

from stratokit.engine.facts import FileFacts
from stratokit.engine.frames import collect
from stratokit.streams.flows import ACK, SYN, TCP, UDP_IDLE_NS


class Segment(Protocol):
    """An open file."""

    @property
    def facts(self) -> FileFacts:
        """Its metadata."""
        ...

    def rows(self, kind: str) -> pl.LazyFrame:
        """Rows of one kind."""
        ...


# Of these a segment has again what the one before had, in rows of event `snapshot`.
_STATES = ("process", "socket")
_ONCE = {"container": ["container_id"], "interface": ["netns", "ifindex", "interface", "addresses"]}
_KEY = ["ip_proto", "vlan", "low", "high"]


def place_of(facts: FileFacts) -> tuple[str, int, int] | None:
    """Which recording a file has segments of, and the numbers of the first and the last of them."""
    found: Any = facts.extra.get("segment")
    try:
        return str(found["recording"]), int(found["number"]), int(found["last"])
    except (TypeError, KeyError, ValueError):
        return None


class Row:
    """Segments of one recording without gaps, in their order."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    def rows(self, kind: str) -> pl.LazyFrame:
        """Rows of one kind, of packets under one numbering."""
        parts = [segment.rows(kind) for segment in self._segments]
        if kind == "packet":
            return pl.concat(self._numbered(parts))
        if kind in _STATES:
            again = pl.col("event") == "snapshot"
            parts = [parts[0], *(part.filter(~again.fill_null(False)) for part in parts[1:])]
        joined = pl.concat(parts)
        if kind in _ONCE:
            joined = joined.unique(_ONCE[kind], keep="first", maintain_order=True)
        return joined

    def _numbered(self, parts: list[pl.LazyFrame]) -> list[pl.LazyFrame]:
        numbered = []
        for part, (frames, flows, going_on) in zip(parts, self._numbers, strict=True):
            shifted = [pl.col("frame") + frames] if frames else []
            for name in ("flow_id", "icmp_flow_id"):
                number = pl.col(name) + flows
                if going_on:
                    number = number.replace(list(going_on), list(going_on.values()))
                shifted.append(number.cast(pl.UInt64).alias(name))
            numbered.append(part.with_columns(shifted))
        return numbered

    @functools.cached_property
    def _numbers(self) -> list[tuple[int, int, dict[int, int]]]:
        """For each segment what is added to frames and to conversations, and then which conversation is the
        same as an earlier one.
        """
        found: list[tuple[int, int, dict[int, int]]] = []
        frames = flows = 0
        known: pl.DataFrame | None = None
        for segment in self._segments:
            rows = segment.rows("packet")
            top = collect(rows.select(pl.col("frame", "flow_id").max())).row(0)
            here = _conversations(rows).with_columns(pl.col("flow_id") + flows)
            going_on = {} if known is None else _going_on(known, here)
            found.append((frames, flows, going_on))
            here = here.with_columns(pl.col("flow_id").replace(list(going_on), list(going_on.values())))
            both = here if known is None else pl.concat([known, here])
            known = both.sort("first").unique(_KEY, keep="last", maintain_order=True)
            frames += int(top[0] or 0)
            flows += 0 if top[1] is None else int(top[1]) + 1
        return found


def _conversations(rows: pl.LazyFrame) -> pl.DataFrame:
    """Those with ports: numbers, ends, first and last time (ns), and whether the first packet begins one."""
    one, other = (pl.format("{} {}", f"{end}_ip", f"{end}_port") for end in ("src", "dst"))
    syn = (pl.col("tcp_flags").first() & (SYN | ACK)) == SYN
    return collect(
        rows.filter(pl.col("flow_id").is_not_null(), pl.col("src_port").is_not_null())
        .select(
            *("flow_id", "ip_proto", "vlan", "tcp_flags"),
            pl.col("ts").to_physical(),
            pl.min_horizontal(one, other).alias("low"),
            pl.max_horizontal(one, other).alias("high"),
        )
        .group_by("flow_id", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in _KEY),
            pl.col("ts").min().alias("first"),
            pl.col("ts").max().alias("last"),
            ((pl.col("ip_proto").first() == TCP) & syn).fill_null(False).alias("begins"),
        )
    )


def _going_on(known: pl.DataFrame, here: pl.DataFrame) -> dict[int, int]:
    """Conversations of a segment that are one with an earlier one, by number."""
    first = here.sort("first").unique(_KEY, keep="first", maintain_order=True)
    joined = first.join(known, on=_KEY, suffix="_before", nulls_equal=True)
    pause = pl.col("first") - pl.col("last_before")
    same = (pl.col("ip_proto") == TCP) & ~pl.col("begins")
    same |= (pl.col("ip_proto") != TCP) & (pause <= UDP_IDLE_NS)
    return dict(joined.filter(same).select("flow_id", "flow_id_before").iter_rows())


def as_rows(sources: Sequence[Any]) -> list[Any]:
    """`sources` with segments that follow each other put together, in their order."""
    placed = [(place_of(source.facts), source) for source in sources]
    rest = [source for place, source in placed if place is None]
    runs: list[tuple[tuple[str, int], list[Any]]] = []  # recording and last number, files
    for place, source in sorted(((p, s) for p, s in placed if p is not None), key=lambda both: both[0]):
        recording, first, last = place
        if runs and runs[-1][0] == (recording, first - 1):
            runs[-1] = ((recording, last), [*runs[-1][1], source])
        else:
            runs.append(((recording, last), [source]))
    if all(len(run) == 1 for _, run in runs):
        return list(sources)
    return [*(Row(run) if len(run) > 1 else run[0] for _, run in runs), *rest]
