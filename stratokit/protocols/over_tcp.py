"""One pass over all TCP conversations, for every protocol that is read from streams of bytes.

Conversations are put together a group after the other (streams.reassembly); each is recognised once, by its
first bytes, and goes to one parser. What a parser finds inside (behind Upgrade or CONNECT, or decrypted) it
gives back as streams again, and these are recognised in the same way. A protocol takes part with a `PARSER`
in its module; `messages(capture, name)` gives what was found for it.

A capture that several tables are asked of is gone through once: `expected` names them beforehand.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.formats.source import forget_pages
from stratokit.protocols.base import Passes
from stratokit.streams import reassembly
from stratokit.streams.plaintext import PlaintextSource
from stratokit.streams.segments import STREAM_LIMIT_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.protocols.inner import Inner
    from stratokit.streams.byte_runs import ByteRuns, Streams
    from stratokit.streams.source import PacketSource

HEAD_BYTES = 512
# So much is copied and parsed at a time in one thread, and so much, or one group alone, in all of them.
# Larger pieces of memory are not used again, but come new from the kernel each time.
GROUP_BYTES = 1 << 24
AHEAD_BYTES = 1 << 27
# TLS in CONNECT in TLS in CONNECT: deeper nesting is not looked into.
NESTING_LIMIT = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Heads:
    """The first bytes of each stream: those of stream s are data[bounds[s] : bounds[s + 1]].

    Conversation k has the streams 2k, from its client, and 2k + 1, from its server.
    """

    data: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    began: NDArray[np.bool_]  # per stream: its first byte is the first that was sent
    # Which conversations use any of these ports; None inside of other streams.
    on_port: Callable[..., NDArray[np.bool_]] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser found in a group of conversations.

    `parts` are frames by the name of the table that they belong to, in the parser's own form, or what makes
    them where that takes long; `counters` what it skipped; `inner` streams in which another protocol goes on;
    `opened` numbers of conversations whose secrets were known.
    """

    parts: Mapping[str, pl.DataFrame | Callable[[], pl.DataFrame]]
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    inner: tuple[Inner, ...] = ()
    opened: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class StreamParser:
    """How a protocol takes part in the pass.

    Attributes:
        name: the protocol's.
        tables: tables that have a part in what it finds; where none of them is asked for, nothing is parsed.
        place: recognisers are asked in this order; one that could mistake others' bytes comes late.
        recognise: for each conversation 0 where its client asks, 1 its server, -1 for none of ours.
        parse: the conversations that are ours, with what `recognise` said of each.
        limit_bytes: so much of each stream is copied for `parse`.
        carries: other protocols may be inside, so its conversations are parsed for any table.
        leads_on: which conversations may have others inside, by what the asking side said alone.
        in_threads: `parse` does not use polars, only what makes its frames does. All threads of polars may be
            waiting for us, and what waited for one of them would wait for ever.
        copies: `parse` and `leads_on` copy what they read of a stream (see byte_runs.fill).
        beside: packets that its tables are read from too; `beside` gives them.
        with_secrets: the parser for a capture that has a key log.
        telling: each of its conversations has a segment for which this is true. Where no other table is asked
            for, only such conversations are put together; so none of its own is looked for inside others.
    """

    name: str
    tables: tuple[str, ...]
    place: int
    recognise: Callable[[Heads], NDArray[np.int64]]
    parse: Callable[[ByteRuns, NDArray[np.int64]], Parsed]
    limit_bytes: int = STREAM_LIMIT_BYTES
    carries: bool = False
    leads_on: Callable[[ByteRuns, NDArray[np.int64]], NDArray[np.bool_]] | None = None
    in_threads: bool = False
    copies: bool = False
    beside: pl.Expr | None = None
    with_secrets: Callable[[StreamParser, Any], StreamParser] | None = None
    telling: pl.Expr | None = None

    def serves(self, tables: AbstractSet[str]) -> bool:
        """Whether any of these tables may get rows from it."""
        return self.carries or any(table in tables for table in self.tables)


@functools.cache
def parsers() -> tuple[StreamParser, ...]:
    """All parsers of this folder in the order in which they are asked."""
    from stratokit.protocols.registry import modules

    found = [m.PARSER for m in modules() if isinstance(getattr(m, "PARSER", None), StreamParser)]
    return tuple(sorted(found, key=lambda parser: (parser.place, parser.name)))


def _parsers_for(capture: PacketSource) -> tuple[StreamParser, ...]:
    """As `parsers`; where the capture has secrets of TLS, those that can use them do."""
    secrets = getattr(capture, "secrets", None)
    if not secrets:
        return parsers()
    return tuple(p.with_secrets(p, secrets) if p.with_secrets else p for p in parsers())


def messages(capture: PacketSource, table: str) -> list[pl.DataFrame]:
    """What the parsers found for a table, in groups of conversations; empty where there was nothing."""
    return _passed(capture, table).parts[table]


def beside(capture: PacketSource, table: str) -> pl.DataFrame | None:
    """The packets that the parser of a table wanted besides its streams, in capture order.

    None where another thread has read them meanwhile and let them go.
    """
    found = _passed(capture, table).beside.get(table)
    return None if found is None else pl.concat(found)


def _passed(capture: PacketSource, table: str) -> Passes:
    passes: Passes = getattr(capture, "passes", None) or Passes()
    if table not in passes.parts:
        # polars may ask for a table in two threads at once: only what is complete is shown to the other.
        found = _run(capture, (passes.expected | {table}) - passes.parts.keys())
        if table not in passes.parts:
            passes.beside |= found.beside
            passes.packets |= found.packets
            if not passes.counted.issuperset(found.parts):
                passes.counters.update(found.counters)
                passes.counted |= found.parts.keys()
            passes.parts |= found.parts
    return passes


@dataclasses.dataclass(frozen=True, slots=True)
class Sighted:
    """The packets in which messages of a table begin or end, as rows that are there already."""

    packets: pl.LazyFrame
    is_chosen = True

    def rows(self, kind: str) -> pl.LazyFrame:
        """See PacketSource."""
        assert kind == "packet"
        return self.packets


def sighted(capture: PacketSource, table: str) -> PacketSource:
    """Where the packets of what `messages` gave for a table were seen, and by whom; for streams.ends."""
    passes = getattr(capture, "passes", None)
    found = passes.packets.get(table) if passes is not None else None
    return Sighted(pl.concat(found, how="diagonal_relaxed").lazy()) if found else capture


def _alone(tables: set[str]) -> StreamParser | None:
    """The parser of the one table that is asked for, where it needs no others; they are not even loaded."""
    from stratokit.protocols.registry import module

    parser = getattr(module(*tables), "PARSER", None) if len(tables) == 1 else None
    return parser if isinstance(parser, StreamParser) and parser.telling is not None else None


def _run(capture: PacketSource, tables: set[str]) -> Passes:
    found = Passes(tables, {table: [] for table in tables})
    alone = _alone(tables)
    known = (alone,) if alone else _parsers_for(capture)
    besides = {table: p.beside for p in known if p.beside is not None for table in tables & {*p.tables}}
    wanted = pl.any_horizontal(*besides.values()) if besides else None
    readers = known if alone is None else _with_others(capture)
    opened: set[int] = set()
    for streams in reassembly.batches(capture, beside=wanted, only=alone.telling if alone else None):
        opened |= _read(streams, streams.packets, found, readers)
        for table, chosen in besides.items():
            if streams.beside is None:
                continue
            others = streams.beside if len(besides) == 1 else streams.beside.filter(chosen)
            found.beside.setdefault(table, []).append(others)
            found.packets[table].append(others.drop("payload", "payload_head"))
    if getattr(capture, "has_plaintext", False):
        source = PlaintextSource(capture, opened)
        flows = source.flows.to_numpy()
        for streams in reassembly.batches(source):
            ours = dataclasses.replace(streams, flow_id=flows[streams.flow_id].astype(np.int64))
            _read(ours, source.seen(streams.packets), found, readers)
    return found


def _with_others(capture: PacketSource) -> tuple[StreamParser, ...]:
    """All parsers, as they recognise what is theirs before others do, but nothing is looked for inside."""
    return tuple(dataclasses.replace(parser, carries=False) for parser in _parsers_for(capture))


def _read(
    streams: Streams, packets: pl.DataFrame, found: Passes, known: tuple[StreamParser, ...]
) -> set[int]:
    """Add what all parsers find in these conversations, with the packets of it, to `found`.

    Returns the numbers of conversations that were opened.
    """
    opened: set[int] = set()
    found.counters.update(streams.losses)
    first = {table: len(parts) for table, parts in found.parts.items()}
    for parsed in _found(streams, found.parts.keys(), known):
        found.counters.update(parsed.counters)
        opened.update(parsed.opened)
        for table in parsed.parts.keys() & found.parts.keys():
            part = parsed.parts[table]
            found.parts[table].append(part if isinstance(part, pl.DataFrame) else part())
    for table, parts in found.parts.items():
        of_messages = _of_frames(packets, parts[first[table] :])
        found.packets.setdefault(table, []).append(of_messages)
    return opened


def _found(streams: Streams, tables: AbstractSet[str], known: tuple[StreamParser, ...]) -> Iterator[Parsed]:
    """What all parsers find in these conversations."""
    if not streams.flow_id.size:
        return
    heads = Heads(*streams.heads(HEAD_BYTES), streams.began, streams.on_port)
    for parser, ours, asks in _recognised(heads, tables, known):
        wanted = ours
        if parser.leads_on is not None and not any(table in tables for table in parser.tables):
            wanted = _leading_on(streams, parser, ours, asks)
        # What is not copied takes no memory.
        size = AHEAD_BYTES // 2 if parser.copies else GROUP_BYTES
        groups = streams.groups(wanted, size, parser.limit_bytes)

        def read(group: NDArray[np.bool_], parser: StreamParser = parser, asks: Any = asks) -> Any:
            runs = streams.byte_runs(group, parser.limit_bytes, later=parser.copies)
            parsed = parser.parse(runs, asks[group]) if parser.in_threads else None
            forget_pages()
            return runs, asks[group], parsed

        for runs, asking, parsed in _ahead(read, groups):
            yield from _with_inner(parsed or parser.parse(runs, asking), tables, known)


def _leading_on(
    streams: Streams, parser: StreamParser, wanted: NDArray[np.bool_], asks: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Those of the wanted conversations that may have others inside."""
    assert parser.leads_on is not None
    found = np.zeros_like(wanted)
    for group, _ in streams.groups(wanted, AHEAD_BYTES):
        runs = streams.byte_runs(group, only=asks[group], later=parser.copies)
        found[group] = parser.leads_on(runs, asks[group])
        forget_pages()
    return found


def _ahead(work: Callable[[Any], Any], groups: Iterable[tuple[Any, int]]) -> Iterator[Any]:
    """`work` of all groups in order, some ahead of the one that is looked at, in threads of their own."""
    threads = min(len(os.sched_getaffinity(0)), AHEAD_BYTES // GROUP_BYTES)
    if threads == 1:
        yield from (work(group) for group, _ in groups)
        return
    pending: collections.deque[tuple[Future[Any], int]] = collections.deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="stratokit") as pool:
        for group, size in groups:
            while pending and size + sum(held for _, held in pending) > AHEAD_BYTES:
                yield pending.popleft()[0].result()
            pending.append((pool.submit(work, group), size))
        while pending:
            yield pending.popleft()[0].result()


def _of_frames(packets: pl.DataFrame, parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The packets that columns of these parts name by their numbers."""
    named = [part[name] for part in parts for name in part.columns if name.endswith("_frame")]
    frames = [series.drop_nulls().cast(packets.schema["frame"]).alias("frame") for series in named]
    if not frames:
        return packets.clear()
    return packets.join(pl.concat(frames).unique().to_frame(), on="frame", how="semi")


def _recognised(
    heads: Heads, tables: AbstractSet[str], known: tuple[StreamParser, ...]
) -> Iterator[tuple[StreamParser, NDArray[np.bool_], NDArray[np.int64]]]:
    """(parser, which conversations are its, who asks in each), where any of its tables is asked for."""
    free = np.ones((heads.bounds.size - 1) // 2, np.bool_)
    last = max((n for n, parser in enumerate(known) if parser.serves(tables)), default=-1)
    for parser in known[: last + 1]:
        asks = parser.recognise(heads)
        ours = free & (asks >= 0)
        free &= ~ours
        if ours.any() and parser.serves(tables):
            yield parser, ours, asks


def _with_inner(
    found: Parsed, tables: AbstractSet[str], known: tuple[StreamParser, ...], depth: int = 0
) -> Iterator[Parsed]:
    """What a parser found, and what others find inside."""
    yield found
    for inner in found.inner if depth < NESTING_LIMIT else ():
        if inner.protocol is None:
            for other, wanted, asks in _recognised(inner.heads(HEAD_BYTES), tables, known):
                parsed = other.parse(inner.chosen(wanted), asks[wanted])
                yield from _with_inner(parsed, tables, known, depth + 1)
        for other in known:
            if other.name == inner.protocol and other.serves(tables):
                yield from _with_inner(other.parse(inner.runs, inner.asking), tables, known, depth + 1)
