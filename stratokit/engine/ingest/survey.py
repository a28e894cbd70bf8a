"""First pass over a spool: everything but the bulk. Small tables stay in memory, packets and system calls do
not.

Memory: proportional to the numbers of processes, sockets and distinct open files, not to events.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from stratokit.engine.ingest.clock import Clock
from stratokit.engine.ingest.gathered import Gathered
from stratokit.errors import FormatError
from stratokit.formats import events, spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl

    from stratokit.engine.ingest.datagrams import Datagrams
    from stratokit.formats.events import Batch, Layout

# Events are taken together up to about this many bytes.
WINDOW_BYTES = 8 << 20


@dataclasses.dataclass
class Survey:
    """What the first pass found. Times in frames are UTC nanoseconds (i64)."""

    opening: dict[str, Any]
    layouts: dict[str, Layout]
    clock: Clock
    clock_pairs: list[dict[str, int]]
    tables: dict[str, dict[str, Any]]
    counters: list[dict[str, Any]]
    closing: dict[str, Any] | None
    damage: spool.Damage
    unreadable: int
    read: dict[str, int]  # records found, by event
    processes: list[Batch]
    sockets: list[Batch]
    owners: pl.DataFrame  # socket_cookie, ts, pid, tid, comm
    files: pl.DataFrame  # identity, ts, pid, dirfd, name, inode, type: which path an open file had from ts on
    users: pl.DataFrame  # pid, fd, ts, identity, inode: which file an fd was from ts on
    closes: pl.DataFrame  # pid, fd, ts of the first close
    folders: pl.DataFrame  # pid, ts, name, identity: chdir by name, fchdir by open file
    homes: pl.DataFrame  # socket_cookie, ts, netns: cookie of the socket's network namespace
    datagrams: Datagrams
    ends: pl.DataFrame  # key, ts, socket_cookie: which socket had addresses from ts on; see `endpoints`
    # Of a segment: {monotonic_ns, totals} where its rows begin; what is before only says what there was.
    begin: dict[str, Any] | None = None
    lead_processes: list[Batch] = dataclasses.field(default_factory=list)
    lead_sockets: list[Batch] = dataclasses.field(default_factory=list)
    stacks: list[Batch] = dataclasses.field(default_factory=list)


class Reader:
    """Chunks of a spool, with progress. Events come in windows: the recorder writes a chunk every 50 ms, and
    frames of a few rows cost as much time as frames of many.
    """

    def __init__(self, reader: spool.SpoolChain, progress: Callable[[int, int], None] | None) -> None:
        self.spool = reader
        self._progress = progress

    def chunks(self, part: int) -> Iterator[spool.Chunk]:
        """All chunks; `part` is 0 for the first pass and 1 for the second, each half of the progress."""
        held: list[memoryview] = []
        size = 0
        lead = False
        for chunk in self.spool.chunks():
            if self._progress:
                self._progress((part * self.spool.size + chunk.offset) // 2, self.spool.size)
            if held and (size >= WINDOW_BYTES or chunk.lead != lead):
                yield _window(held, lead)
                held, size = [], 0
            lead = chunk.lead
            if chunk.type != spool.EVENTS or not events.is_whole(chunk.payload):
                yield chunk
                continue
            held.append(chunk.payload)
            size += len(chunk.payload)
        if held:
            yield _window(held, lead)


def _window(payloads: list[memoryview], lead: bool) -> spool.Chunk:
    return spool.Chunk(spool.EVENTS, 0, memoryview(b"".join(payloads)), lead)


def recording_filter(reader: spool.SpoolChain) -> tuple[str, bool]:
    """The filter that the recording was made with, empty for none, and whether of DNS only errors count."""
    opening = next((chunk.json() for chunk in reader.chunks() if chunk.type == spool.OPENING), {})
    found = opening.get("options", {}).get("filter") or {}
    return str(found.get("text") or ""), bool(found.get("dns_errors_only"))


def recording_redaction(reader: spool.SpoolChain) -> str:
    """The profiles of `--redact` that the recording was made with, empty for none."""
    opening = next((chunk.json() for chunk in reader.chunks() if chunk.type == spool.OPENING), {})
    return str(opening.get("options", {}).get("redact") or "")


def survey(reader: Reader) -> Survey:
    """Read all chunks once.

    Raises:
        FormatError: the spool has no opening chunk, so nothing in it can be understood.
    """
    seen = _Seen()
    gathered = Gathered()
    known: dict[str, Layout] = {}
    rows: dict[str, list[Batch]] = {"process": [], "socket": [], "stack": []}
    lead: dict[str, list[Batch]] = {"process": [], "socket": []}
    unreadable = 0
    read: dict[str, int] = {}
    for chunk in reader.chunks(0):
        if chunk.type != spool.EVENTS:
            seen.take(chunk)
            continue
        known = known or (events.layouts(seen.opening) if seen.opening else {})
        found, bad = events.split(chunk.payload, known)
        for name, kept in (lead if chunk.lead else rows).items():
            if name in found:
                kept.append(found[name])
        if not chunk.lead:
            unreadable += bad if known else 0
            for name, batch in found.items():
                read[name] = read.get(name, 0) + batch.fixed.size
        gathered.look(found)
    if seen.opening is None or not seen.pairs:
        raise FormatError(
            f"{reader.spool.path} was cut before the recording began; there is nothing to convert"
        )
    clock = Clock(seen.pairs, (seen.opening.get("segment") or {}).get("clock"))
    owners, files, users, closes, folders, homes, ends = gathered.frames(clock)
    return Survey(
        seen.opening,
        known or events.layouts(seen.opening),
        clock,
        seen.pairs,
        seen.tables,
        seen.counters,
        seen.closing,
        reader.spool.damage,
        unreadable,
        read,
        rows["process"],
        rows["socket"],
        owners,
        files,
        users,
        closes,
        folders,
        homes,
        gathered.datagrams,
        ends,
        seen.begin,
        lead["process"],
        lead["socket"],
        rows["stack"],
    )


@dataclasses.dataclass
class _Seen:
    """What chunks other than events say."""

    opening: dict[str, Any] | None = None
    closing: dict[str, Any] | None = None
    begin: dict[str, Any] | None = None
    pairs: list[dict[str, int]] = dataclasses.field(default_factory=list)
    tables: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    counters: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def take(self, chunk: spool.Chunk) -> None:
        value = chunk.json()
        if chunk.type == spool.OPENING:
            self.opening = value
        elif chunk.type == spool.CLOCK:
            self.pairs.append(value)
        elif chunk.type == spool.TABLE:
            table = self.tables.setdefault(
                value["table"], {"monotonic_ns": value["monotonic_ns"], "rows": []}
            )
            table["rows"] += value["rows"]
        elif chunk.type == spool.CLOSING:
            self.closing = value
        elif chunk.type == spool.COUNTERS and not chunk.lead:
            self.counters.append(value)
        elif chunk.type == spool.BEGIN and not chunk.lead:
            self.begin = value
