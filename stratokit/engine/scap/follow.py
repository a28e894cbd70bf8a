"""Follows the events of a scap file one after the other and merges the two of each system call into a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.engine.scap import state as st
from stratokit.engine.scap.decode import DATA, PATH, PATH2, SPANS, decode, decoded
from stratokit.engine.scap.descriptors import FD_LIMIT, OPEN, follow_call, key_of, lookup, open_file, spelled
from stratokit.engine.scap.layout import ENDED, EXECUTED, FORK, OTHER, SYSCALL, UNREADABLE, Out, Scratch
from stratokit.engine.scap.texts import text_number
from stratokit.engine.scap.threads import cloned, ended, executed, met, moved, thread_of
from stratokit.formats.scap.blocks import STATE_ONLY
from stratokit.formats.scap.params import EFFECT, NUMBERS, PLACE, Tables
from stratokit.formats.scap.walk import GOOD
from stratokit.kernels import inlined
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.kernels import lean_routine as routine

i64: Any = np.int64

# Entries of type 330 end with the exit of type 293 when they succeed.
EXECVEAT, EXECVE_EXIT = 330, 293
CLONE, EXEC, EXIT, CLOSE = (EFFECT[n] for n in ("clone", "exec", "exit", "close"))
CHDIR, FCHDIR = EFFECT["chdir"], EFFECT["fchdir"]
RET, ARG0 = PLACE["ret"], PLACE["arg0"]
ROOM_BYTES = 1 << 22


@part
def _clear(row: Any) -> None:
    row.duration = -1
    row.enter_at = 0
    row.enter_size = 0
    row.enter_number = 0
    row.exit_at = 0
    row.exit_size = 0
    row.exit_number = 0
    row.data_at = 0
    row.data_size = -1
    row.mask = 0
    row.fd = -1
    row.path = -1
    row.path2 = -1
    row.fd_name = -1
    row.local = -1
    row.remote = -1
    row.local_port = 0
    row.remote_port = 0
    row.fd_kind = 0
    row.has_inode = 0
    row.family = 0
    row.datagram = 0


@part
def _whose(row: Any, thread: Any) -> None:
    row.tid = thread.tid
    row.pid = thread.pid
    row.start = thread.start
    row.comm = thread.comm
    row.cgroups = thread.cgroups


@part
def _entry(state: st.State, index: int, fd: int) -> Any:
    """Entry of an open descriptor of a thread, or -1: most calls work on the one of the call before."""
    if fd < 0 or fd >= FD_LIMIT:
        return i64(-1)
    table, entry = i64(state.threads[index].table), i64(state.threads[index].used)
    if state.fd_keys[entry] != key_of(table, fd) or entry >= state.counts[st.FDS]:
        entry = i64(lookup(state, table, fd))
        state.threads[index].used = max(entry, 0)
        return entry
    return entry if state.fds[entry].open else i64(-1)


@part
def _name_fd(row: Any, state: st.State, index: int, fd: int) -> None:
    """Say what the row's descriptor stands for."""
    row.fd = fd
    entry = _entry(state, index, fd)
    if entry < 0:
        return
    found = state.fds[entry]
    row.fd_kind = found.kind
    row.fd_name = found.shown if found.shown != st.UNTOLD else spelled(state, entry)
    row.local = found.local
    row.remote = found.remote
    row.local_port = found.local_port
    row.remote_port = found.remote_port
    row.family = found.family
    row.datagram = found.datagram
    row.inode = found.inode
    row.device = found.device
    row.has_inode = found.has_inode


@part
def _texts(row: Any, state: st.State, spans: np.ndarray, data: np.ndarray) -> None:
    row.path = text_number(state, data, spans[PATH, 0], spans[PATH, 1])
    row.path2 = text_number(state, data, spans[PATH2, 0], spans[PATH2, 1])
    if spans[DATA, 0] >= 0:
        row.data_at = spans[DATA, 0]
        row.data_size = spans[DATA, 1]


@part
def _entered(row: Any, enter: Any, number: int) -> None:
    row.ts = enter.ts
    row.enter_at = enter.at
    row.enter_size = enter.size
    row.enter_number = number


@routine
def _report(out: Out, thread: Any, event: int, ts: int, status: int) -> None:
    """A row of kind process."""
    found = out.processes[out.used[1]]
    out.used[1] += 1
    found.ts = ts
    found.event = event
    found.start = thread.start
    found.tid = thread.tid
    found.pid = thread.pid
    found.ptid = thread.ptid
    found.uid = thread.uid
    found.gid = thread.gid
    found.comm = thread.comm
    found.cmdline = thread.cmdline
    found.path = thread.path
    found.cgroups = thread.cgroups
    found.exit_status = status


@part
def _reset(work: Scratch, values: np.ndarray, spans: int) -> None:
    # Item by item: numba makes much code of assignments to slices.
    for k in range(spans):
        work.spans[k, 0] = -1
        work.spans[k, 1] = 0
    for k in range(len(work.facts)):
        work.facts[k] = 0
    for k in range(NUMBERS):
        values[k] = 0


@routine
def flush_enter(
    data: np.ndarray,
    state: st.State,
    index: int,
    tables: Tables,
    fd_args: np.ndarray,
    work: Scratch,
    out: Out,
) -> None:
    """A call whose exit does not come: a row without a result."""
    n = out.used[0]
    row, values = out.rows[n], out.values[n]
    out.used[0] += 1
    enter = state.enters[index]
    _clear(row)
    _reset(work, values, SPANS)
    row.kind = SYSCALL
    row.type = enter.type
    row.mask = decoded(data, enter, tables, values, work.spans, work.ends, work.facts)
    _whose(row, state.threads[index])
    _entered(row, enter, state.threads[index].enter_number)
    row.end = enter.ts
    _texts(row, state, work.spans, data)
    place = fd_args[enter.type]
    if place > 0 and row.mask >> place & 1:
        _name_fd(row, state, index, values[place])
    state.threads[index].enter_number = 0


@routine
def _follow(
    data: np.ndarray, ts: int, effect: int, mask: int, values: np.ndarray, state: st.State, index: int,
    work: Scratch, hidden: bool, out: Out,
) -> None:  # fmt: skip
    """What a call that has returned makes of threads and descriptors; `hidden` if nobody made it."""
    if effect == CLONE:
        child = cloned(state, index, ts, mask, values, work.spans, data)
        if child >= 0 and state.threads[child].tid == state.threads[child].pid:
            _report(out, state.threads[child], FORK, ts, -1)
    elif effect == EXEC:
        if values[RET] == 0:
            thread = state.threads[index]
            path, cmdline = thread.path, thread.cmdline
            executed(state, index, mask, values, work.spans, data)
            # A writer may only tell that a process has another name now.
            if not hidden or thread.path != path or thread.cmdline != cmdline:
                _report(out, thread, EXECUTED, ts, -1)
    elif effect in (CHDIR, FCHDIR):
        if values[RET] >= 0:
            moved(state, index, effect == FCHDIR, values, work.spans, data)
    else:
        table = i64(state.threads[index].table)
        follow_call(state, table, effect, mask, values, work.spans, data, work.ends, work.facts)


@inlined
def _returned(
    data: np.ndarray, event: Any, number: int, state: st.State, index: int, tables: Tables,
    fd_args: np.ndarray, work: Scratch, out: Out,
) -> None:  # fmt: skip
    """The exit of a call, with its entry where that was seen."""
    if state.threads[index].enter_number:
        waiting = state.enters[index].type
        if waiting + 1 != event.type and not (waiting == EXECVEAT and event.type == EXECVE_EXIT):
            flush_enter(data, state, index, tables, fd_args, work, out)
    n = out.used[0]
    row, values = out.rows[n], out.values[n]
    out.used[0] += 1
    _clear(row)
    _reset(work, values, SPANS)
    # What only tells readers the state is no call that anybody made.
    row.kind = OTHER if event.flags & STATE_ONLY else SYSCALL
    row.type = event.type & ~1
    row.ts = event.ts
    enter, entered = state.enters[index], state.threads[index].enter_number
    mask = i64(0)
    for k in range(0 if entered else 1, 2):
        half = enter if k == 0 else event
        told = tables.told[event.type]
        known = k == 1 and entered > 0 and mask & told == told and enter.type + 1 == event.type
        looked_at = i64(tables.looked_after[event.type] if known else tables.looked_at[half.type])
        mask |= decode(data, half, tables, values, work.spans, work.ends, work.facts, looked_at)
    if entered:
        _entered(row, enter, entered)
        row.duration = max(event.ts - enter.ts, 0)
        row.type = enter.type
        state.threads[index].enter_number = 0
    row.mask = mask
    row.end = event.ts
    row.exit_at = event.at
    row.exit_size = event.size
    row.exit_number = number
    place = fd_args[event.type & ~1]
    fd = values[place] if place > 0 and mask >> place & 1 else i64(-1)
    effect = tables.effect[event.type]
    _texts(row, state, work.spans, data)
    if effect == OPEN:
        if values[RET] >= 0 and mask >> RET & 1:
            thread = state.threads[index]
            open_file(
                state, i64(thread.table), i64(thread.cwd), i64(row.path), mask, values, work.spans, data
            )
    elif effect and effect != CLOSE and mask >> RET & 1:
        _follow(data, event.ts, effect, mask, values, state, index, work, row.kind == OTHER, out)
    if effect == CLOSE or fd >= 0:
        _name_fd(row, state, index, fd)
    if effect == CLOSE and values[RET] >= 0:
        entry = _entry(state, index, fd)
        if entry >= 0:
            state.fds[entry].open = 0
    _whose(row, state.threads[index])


@routine
def _single(
    data: np.ndarray,
    event: Any,
    number: int,
    state: st.State,
    index: int,
    tables: Tables,
    work: Scratch,
    out: Out,
) -> None:
    """An event that is no system call."""
    n = out.used[0]
    row, values = out.rows[n], out.values[n]
    out.used[0] += 1
    _clear(row)
    _reset(work, values, SPANS)
    row.kind = OTHER if event.wrong == GOOD else UNREADABLE
    row.type = event.type & ~1
    row.ts = event.ts
    row.end = event.ts
    row.exit_at = event.at
    row.exit_size = event.size
    row.exit_number = number
    if event.wrong == GOOD:
        row.mask = decoded(data, event, tables, values, work.spans, work.ends, work.facts)
        _texts(row, state, work.spans, data)
    if index < 0:
        row.tid = -1
        row.pid = -1
        row.start = -1
        row.comm = -1
        row.cgroups = -1
        return
    _whose(row, state.threads[index])
    if event.wrong == GOOD and tables.effect[event.type] == EXIT:
        thread = state.threads[index]
        if thread.tid == thread.pid or thread.pid < 0:
            _report(out, thread, ENDED, event.ts, values[ARG0] if row.mask >> ARG0 & 1 else -1)
        ended(state, index)


@kernel
def follow(
    data: np.ndarray, events: np.ndarray, first: int, first_number: int, state: st.State, tables: Tables,
    fd_args: np.ndarray, work: Scratch, out: Out,
) -> tuple[int, int, int]:  # fmt: skip
    """Go on with event `first`; returns the next one, and what the state lacks for it: bytes of texts, fds.

    `fd_args` has by event type the place of a call's descriptor.
    """
    counts = state.counts
    last = i64(0)  # the thread of the event before, which most are of
    for i in range(first, events.size):
        event = events[i]
        need = ROOM_BYTES + 4 * event.size
        fds = i64(0)
        if (
            counts[st.HEAP] + need > state.heap.size
            or counts[st.TEXTS] + 16 > state.text_keys.size
            or counts[st.THREADS] + 8 > state.threads.size
            or counts[st.TABLES] + 8 > state.heads.size
            or counts[st.FDS] + 8 > state.fds.size
        ):
            return i, need, fds
        number = first_number + i
        if event.wrong != GOOD or event.tid < 0:
            index = thread_of(state, event.tid) if event.tid >= 0 else -1
            _single(data, event, number, state, index, tables, work, out)
            continue
        if state.threads[last].tid == event.tid and state.threads[last].alive:
            index = last
        else:
            index = i64(met(state, event.tid))
            last = index
        if tables.single[event.type]:
            if tables.effect[event.type] == EXIT and state.threads[index].enter_number:
                flush_enter(data, state, index, tables, fd_args, work, out)
            _single(data, event, number, state, index, tables, work, out)
        elif event.type & 1 == 0:
            if state.threads[index].enter_number:
                flush_enter(data, state, index, tables, fd_args, work, out)
            state.enters[index] = event
            state.threads[index].enter_number = number
        else:
            if tables.effect[event.type] == CLONE:
                fds = counts[st.LARGEST]  # at most, of its parent
                if counts[st.FDS] + fds + 8 > state.fds.size:
                    return i, need, fds
            _returned(data, event, number, state, index, tables, fd_args, work, out)
    return events.size, 0, 0
