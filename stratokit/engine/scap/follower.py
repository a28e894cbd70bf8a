"""Runs the kernels over a file: lists into the state, windows of events into rows, with room as needed."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import numpy as np

from stratokit.engine.scap import follow, layout, state, texts, threads
from stratokit.engine.scap.descriptors import opened, set_ends
from stratokit.engine.scap.projection import narrowed
from stratokit.formats.scap import metadata, params
from stratokit.formats.scap.params import PLACE
from stratokit.formats.scap.process_list import Processes
from stratokit.formats.scap.reader import BATCH_EVENTS, Events, Listed
from stratokit.formats.source import WINDOW_BYTES
from stratokit.kernels import lean_kernel as kernel
from stratokit.schema import load, scap

_FD_KINDS = {
    metadata.FILE: state.FILE,
    metadata.FILE_V2: state.FILE,
    metadata.DIRECTORY: state.DIRECTORY,
    metadata.FIFO: state.PIPE,
    **dict.fromkeys((3, 4, 5, 6, 8, metadata.NETLINK), state.SOCKET),
}
_FAMILIES = {3: 2, 4: 10, 5: 2, 6: 10, 8: 1, metadata.NETLINK: 16}
_TCP, _UDP = 2, 3
# Of what calls said that have not returned when a window ends; only a hostile file has so much.
CARRIED_MAX = 1 << 28


@functools.cache
def fd_places() -> np.ndarray:
    """By type of the enter event: the place of the descriptor that a call works on, returns or makes first, 0
    for none.
    """
    calls = {call.name: call for call in load.syscalls("x86_64").values()}
    found = np.zeros(max(scap.events()) + 2, np.int64)
    for type_, event in scap.events().items():
        call = calls.get(event.call)
        if call is None or event.single:
            continue
        kinds = [kind for _, kind in call.args]
        if call.returns == "fd":
            found[type_] = PLACE["ret"]
        elif call.makes_two:
            found[type_] = PLACE["fd1"]
        elif "fd" in kinds:
            found[type_] = PLACE[f"arg{kinds.index('fd')}"]
    return found


@kernel
def _waiting_bytes(known: state.State) -> int:
    """Size of the entries of calls that have not returned."""
    size = 0
    for index in range(known.counts[state.THREADS]):
        if known.threads[index].enter_number:
            size += known.enters[index].size
    return size


@kernel
def _carry(data: np.ndarray, known: state.State, out: np.ndarray, begin: int) -> None:
    """Copy the entries of calls that have not returned to `out`, which will stand at `begin`. What those say
    that have no room is forgotten.
    """
    at = 0
    for index in range(known.counts[state.THREADS]):
        if not known.threads[index].enter_number:
            continue
        enter = known.enters[index]
        if at + enter.size > out.size:
            enter.at = begin
            enter.size = 0
            enter.count = 0
            known.counts[state.FORGOTTEN] += 1
            continue
        for k in range(enter.size):
            out[at + k] = data[enter.at + k]
        shift = begin + at - enter.at
        enter.at += shift
        enter.lens += shift
        enter.params += shift
        at += enter.size


@kernel
def _flush_all(
    data: np.ndarray, known: state.State, tables: params.Tables, fd_args: np.ndarray, work: layout.Scratch,
    out: layout.Out,
) -> None:  # fmt: skip
    for index in range(known.counts[state.THREADS]):
        if known.threads[index].enter_number:
            follow.flush_enter(data, known, index, tables, fd_args, work, out)


class Follower:
    """Keeps what is known while a file goes by."""

    def __init__(self, columns: Collection[str] | None = None) -> None:
        """`columns` are those that are made of its rows, None for all."""
        self.known = state.empty()
        self.events_before = 0
        self.fd_args = fd_places()
        self.tables = narrowed(columns, self.fd_args)
        self.work = layout.scratch()
        self._window, self._shift = -1, 0
        self._buffer = np.empty(0, np.uint8)  # memory that was used is had faster than new memory
        self._out = layout.room(0)
        self.data = np.zeros(1, np.uint8)

    def text(self, value: bytes) -> int:
        """Number of a text, -1 for an empty one."""
        if not value:
            return -1
        self._room(len(value))
        at = int(self.known.counts[state.HEAP])
        self.known.heap[at : at + len(value)] = np.frombuffer(value, np.uint8)
        return int(texts.kept(self.known, len(value)))

    def _room(self, size: int, fds: int = 0) -> None:
        self.known = state.grown(self.known, size + follow.ROOM_BYTES, fds)

    def listed(self, item: Listed) -> None:
        """Take in a list that stands before the events; a new section begins anew."""
        if item.name == "section":
            threads_ = self.known.threads[: self.known.counts[state.THREADS]]
            for index in np.flatnonzero(threads_["alive"]):
                threads.ended(self.known, int(index))
        elif item.name == "processes":
            self._processes(item.value)
        elif item.name == "descriptors":
            for descriptor in item.value:
                self._descriptor(descriptor)

    def _processes(self, found: Processes) -> None:
        at = 0
        while at < 2 * len(found):
            at = int(threads.listed(self.known, at, found.data, found.numbers, found.spans))
            if at < 2 * len(found):
                self._room(0)

    def _descriptor(self, item: metadata.Descriptor) -> None:
        self._room(0)
        index = int(threads.thread_of(self.known, _signed(item.tid)))
        name = self.text(item.name)
        kind = _FD_KINDS.get(item.kind, state.ANON)
        table = int(self.known.threads[index]["table"])
        entry = int(opened(self.known, table, _signed(item.fd), kind, name))
        if entry < 0:
            return
        found = self.known.fds[entry]
        found["family"] = _FAMILIES.get(item.kind, 0)
        found["datagram"] = {_TCP: state.STREAM, _UDP: state.DATAGRAM}.get(item.l4, 0)
        if item.inode:
            found["inode"], found["device"], found["has_inode"] = item.inode, item.device, 1
        if item.kind in (metadata.IPV4, metadata.IPV6, metadata.IPV4_SERVER, metadata.IPV6_SERVER):
            self._room(256)
            both = 3 if item.kind in (metadata.IPV4, metadata.IPV6) and item.remote_port else 1
            ends = (np.frombuffer(end, np.uint8) for end in (item.local, item.remote))
            local, remote = (end.copy() for end in ends)
            set_ends(self.known, entry, local, item.local_port, remote, item.remote_port, both)

    def events(self, batch: Events) -> layout.Out:
        """Rows that this batch completes; positions in them count in `data`. Both hold until the next one."""
        rows = self.entered(batch)
        if self._out.rows.size < 2 * rows.size:
            self._out = layout.room(max(rows.size, BATCH_EVENTS))
        out = self._out
        out.used[:] = 0
        at = 0
        while at < rows.size:
            at, need, fds = follow.follow(
                self.data,
                rows,
                at,
                self.events_before + 1,
                self.known,
                self.tables,
                self.fd_args,
                self.work,
                out,
            )
            if at < rows.size:
                self.grow(need, fds)
        self.events_before += rows.size
        return out

    def grow(self, need: int, fds: int) -> None:
        """Make room for the texts and descriptors that an event may need."""
        self.known = state.grown(self.known, need, fds)

    def end(self) -> layout.Out:
        """Rows of the calls that never returned."""
        waiting = int((self.known.threads["enter_number"] > 0).sum())
        out = layout.room(waiting)
        self._room(256 * waiting + (1 << 16))
        while self.known.counts[state.TEXTS] + 4 * waiting > self.known.text_keys.size:
            self._grow_texts()
        _flush_all(self.data, self.known, self.tables, self.fd_args, self.work, out)
        return out

    def _grow_texts(self) -> None:
        full = self.known.counts[state.TEXTS]
        self.known.counts[state.TEXTS] = self.known.text_keys.size
        grown = state.grown(self.known, 0, 0)
        grown.counts[state.TEXTS] = full
        self.known = grown

    def entered(self, batch: Events) -> np.ndarray:
        """Go on to a batch: `data` becomes its window, with what calls that have not returned said in front
        of it. Returns its rows, whose positions count in `data`.
        """
        if batch.window != self._window:
            size = min(int(_waiting_bytes(self.known)), CARRIED_MAX)
            said = np.empty(size, np.uint8)
            begin = max(batch.first - size, 0)
            _carry(self.data, self.known, said, begin)
            if size < batch.first:
                self.data, self._shift = batch.data, 0
            else:
                self._shift = size - batch.first
                window = batch.data[batch.first :]
                if self._buffer.size < size + window.size:
                    self._buffer = np.empty(max(size + window.size, WINDOW_BYTES), np.uint8)
                self.data = self._buffer[: size + window.size]
                self.data[size:] = window
            self.data[begin : begin + size] = said
            self._window = batch.window
        if not self._shift:
            return batch.rows
        rows = batch.rows.copy()
        for name in ("at", "lens", "params"):
            rows[name] += self._shift
        return rows


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def all_rows(items: Any, columns: Collection[str] | None = None) -> Any:
    """(follower, item or rows) for each item of a reader, then the rows of calls that never returned.

    Of rows only what these columns need is valid.
    """
    follower = Follower(columns)
    for item in items:
        if isinstance(item, Events):
            yield follower, follower.events(item)
        else:
            follower.listed(item)
            yield follower, item
    yield follower, follower.end()
