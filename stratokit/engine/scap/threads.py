"""Threads, from the process list and from the calls that make and end them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.engine.scap import state as st
from stratokit.engine.scap.decode import ARGS, CGROUPS, COMM, CWD, EXE, EXEPATH, PATH
from stratokit.engine.scap.descriptors import ARG0, close_on_exec, closed_from, copied, lookup
from stratokit.engine.scap.hashing import find, put
from stratokit.engine.scap.texts import SLASH, append, interned, joined, kept, path_from, text_number
from stratokit.formats.scap.params import PLACE
from stratokit.formats.scap.process_list import NUMBERS, TEXTS
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.kernels import lean_routine as routine

i64: Any = np.int64
u64: Any = np.uint64

RET, TID, PID, PTID = PLACE["ret"], PLACE["tid"], PLACE["pid"], PLACE["ptid"]
UID, GID, CLONE_FLAGS = PLACE["uid"], PLACE["gid"], PLACE["clone_flags"]
CLONE_FILES, CLONE_THREAD, CLONE_NEWPID = 0x400, 0x10000, 0x20000000
CHILD_IN_PIDNS = 1 << 40  # as schemas/scap numbers it
OWN, PARENTS = 1, 2
_TID, _PID, _PTID, _UID, _GID = (NUMBERS.index(name) for name in ("tid", "pid", "ptid", "uid", "gid"))
_COMM, _EXE, _ARGS, _EXEPATH, _CWD, _CGROUPS = (
    TEXTS.index(name) for name in ("comm", "exe", "args", "exepath", "cwd", "cgroups")
)
ENTRY_BYTES = len(TEXTS) << 16  # at most, of the texts of an entry
MOST_FD = (1 << 31) - 1


@routine
def new_table(state: st.State) -> Any:
    """An empty table of descriptors with one user."""
    if state.counts[st.FREE_TABLES]:
        state.counts[st.FREE_TABLES] -= 1
        table = i64(state.free[state.counts[st.FREE_TABLES]])
    else:
        table = state.counts[st.TABLES]
        state.counts[st.TABLES] += 1
    state.users[table] = 1
    return table


@routine
def leave_table(state: st.State, table: int) -> None:
    """A thread uses its table no more; the last one leaves it empty for others."""
    if table < 0:
        return
    state.users[table] -= 1
    if state.users[table] == 0:
        closed_from(state, table, 0, MOST_FD, False)
        state.free[state.counts[st.FREE_TABLES]] = table
        state.counts[st.FREE_TABLES] += 1


@kernel
def thread_of(state: st.State, tid: int) -> Any:
    """The thread of that id; one that nobody told of begins with nothing known."""
    index = find(state.thread_slots, state.thread_keys, u64(tid))
    if index < 0:
        index = state.counts[st.THREADS]
        state.counts[st.THREADS] += 1
        state.thread_keys[index] = u64(tid)
        put(state.thread_slots, u64(tid), index)
        state.threads[index].alive = 0
        state.threads[index].table = -1
        state.threads[index].enter_number = 0
    if not state.threads[index].alive:
        born(state, i64(index), tid, -1, -1)
    return i64(index)


@part
def met(state: st.State, tid: int) -> Any:
    """As `thread_of`, for every event: most threads are known and alive."""
    index = find(state.thread_slots, state.thread_keys, u64(tid))
    if index >= 0 and state.threads[index].alive:
        return i64(index)
    return thread_of(state, tid)


@kernel
def table_of(state: st.State, tid: int) -> Any:
    """The table of descriptors of a thread that is known, or -1."""
    index = find(state.thread_slots, state.thread_keys, u64(tid))
    return i64(state.threads[index].table) if index >= 0 else i64(-1)


@kernel
def born(state: st.State, index: int, tid: int, pid: int, table: int) -> None:
    """A thread begins; -1 for what is unknown, and a table of its own."""
    thread = state.threads[index]
    leave_table(state, i64(thread.table))
    thread.tid = tid
    thread.pid = pid
    thread.ptid = -1
    thread.start = -1
    thread.enter_number = 0
    thread.comm = -1
    thread.cmdline = -1
    thread.path = -1
    thread.cwd = -1
    thread.cgroups = -1
    thread.used = 0
    thread.uid = -1
    thread.gid = -1
    thread.born = 0
    thread.alive = 1
    if table >= 0:
        thread.table = table
        state.users[table] += 1
    else:
        thread.table = new_table(state)


@routine
def _listed_text(state: st.State, data: np.ndarray, at: int, size: int) -> Any:
    return i64(interned(state, data, at, size)) if size else i64(-1)


@routine
def _describe_listed(
    state: st.State, thread: Any, data: np.ndarray, numbers: np.ndarray, spans: np.ndarray
) -> None:
    thread.ptid = numbers[_PTID]
    thread.uid = numbers[_UID]
    thread.gid = numbers[_GID]
    thread.comm = _listed_text(state, data, spans[_COMM, 0], spans[_COMM, 1])
    thread.path = _listed_text(state, data, spans[_EXEPATH, 0], spans[_EXEPATH, 1])
    thread.cgroups = _listed_text(state, data, spans[_CGROUPS, 0], spans[_CGROUPS, 1])
    start, size = spans[_CWD, 0], spans[_CWD, 1]
    while size > 1 and data[start + size - 1] == SLASH:
        size -= 1
    thread.cwd = _listed_text(state, data, start, size)
    if spans[_EXE, 1]:
        end = append(state, i64(0), data, spans[_EXE, 0], spans[_EXE, 1])
        state.heap[state.counts[st.HEAP] + end] = 0
        end = append(state, i64(end + 1), data, spans[_ARGS, 0], spans[_ARGS, 1])
        thread.cmdline = kept(state, i64(end))


@kernel
def listed(state: st.State, first: int, data: np.ndarray, numbers: np.ndarray, spans: np.ndarray) -> Any:
    """Threads of a `Processes` list, leaders in a first round, the others in a second; `first` counts entries
    of both. Returns how far there was room: less than twice as many as entries.
    """
    counts = state.counts
    total = len(numbers)
    for i in range(first, 2 * total):
        k = i % total
        if (
            counts[st.HEAP] + ENTRY_BYTES > state.heap.size
            or counts[st.TEXTS] + 8 > state.text_keys.size
            or counts[st.THREADS] + 2 > state.threads.size
            or counts[st.TABLES] + 2 > state.heads.size
        ):
            return i64(i)
        tid, pid = numbers[k, _TID], numbers[k, _PID]
        if (tid == pid) != (i < total):
            continue
        index = thread_of(state, tid)
        born(state, index, tid, pid, table_of(state, pid) if tid != pid else i64(-1))
        _describe_listed(state, state.threads[index], data, numbers[k], spans[k])
    return i64(2 * total)


@routine
def _inherit(state: st.State, index: int, parent: int, flags: int) -> None:
    """A child has what its parent had; threads and CLONE_FILES share the descriptors."""
    child, old = state.threads[index], state.threads[parent]
    child.comm = old.comm
    child.cmdline = old.cmdline
    child.path = old.path
    child.cwd = old.cwd
    child.cgroups = old.cgroups
    child.uid = old.uid
    child.gid = old.gid
    if flags & (CLONE_FILES | CLONE_THREAD):
        leave_table(state, i64(child.table))
        child.table = old.table
        state.users[old.table] += 1
        return
    if state.counts[st.FDS] + state.sizes[old.table] > st.FDS_MAX:
        state.counts[st.UNFOLLOWED] += 1
        return
    entry = state.heads[old.table]
    while entry >= 0:
        if state.fds[entry].open:
            copied(state, i64(entry), i64(child.table), i64(state.fds[entry].fd))
        entry = state.fds[entry].next


@routine
def describe(
    state: st.State, index: int, mask: int, values: np.ndarray, spans: np.ndarray, data: np.ndarray
) -> None:
    """Take what a clone or execve says about the thread it is about."""
    thread = state.threads[index]
    comm = text_number(state, data, spans[COMM, 0], spans[COMM, 1])
    cmdline = joined(state, data, spans[EXE, 0], spans[EXE, 1], spans[ARGS, 0], spans[ARGS, 1])
    cgroups = joined(state, data, spans[CGROUPS, 0], spans[CGROUPS, 1], -1, 0)
    if comm >= 0:
        thread.comm = comm
    elif cmdline >= 0 and thread.comm < 0:  # oldest versions have no comm
        thread.comm = text_number(state, data, spans[EXE, 0], spans[EXE, 1])
    if cmdline >= 0:
        thread.cmdline = cmdline
    if cgroups >= 0 and spans[CGROUPS, 1] > 1:
        thread.cgroups = cgroups
    if mask >> UID & 1:
        thread.uid = values[UID]
        thread.gid = values[GID]
    if mask >> PID & 1:
        thread.pid = values[PID]
    if mask >> PTID & 1:
        thread.ptid = values[PTID]


@routine
def cloned(
    state: st.State, index: int, ts: int, mask: int, values: np.ndarray, spans: np.ndarray, data: np.ndarray
) -> Any:
    """A clone, fork or vfork has returned in thread `index`; returns the child if its life begins with this.

    Both ends report it, in any order: the parent with the child's id, the child with zero.
    """
    ret, flags = values[RET], values[CLONE_FLAGS]
    if ret > 0:
        if flags & (CLONE_NEWPID | CHILD_IN_PIDNS):
            return -1  # the child's own event has the id that everybody else uses
        slot = find(state.thread_slots, state.thread_keys, u64(ret))
        if slot >= 0 and state.threads[slot].alive and state.threads[slot].born == OWN:
            state.threads[slot].born |= PARENTS
            return -1
        child = thread_of(state, ret)
        is_thread = flags & CLONE_THREAD != 0
        pid = state.threads[index].pid
        born(state, child, ret, pid if is_thread else ret, -1)
        _inherit(state, child, index, flags)
        state.threads[child].ptid = state.threads[index].ptid if is_thread else pid
        state.threads[child].born = PARENTS
        state.threads[child].start = ts
        return child
    if ret < 0:
        return -1
    thread = state.threads[index]
    if thread.born == PARENTS:
        thread.born |= OWN
        describe(state, index, mask, values, spans, data)
        return -1
    tid = thread.tid
    pid = values[PID] if mask >> PID & 1 else i64(-1)
    leader = mask >> PID & 1 and pid != tid
    above = pid if leader else values[PTID] if mask >> PTID & 1 else i64(-1)
    slot = find(state.thread_slots, state.thread_keys, u64(above)) if above >= 0 else -1
    born(state, index, tid, pid, -1)
    if slot >= 0 and state.threads[slot].alive:
        _inherit(state, index, i64(slot), flags | (CLONE_THREAD if leader else 0))
    state.threads[index].born = OWN
    state.threads[index].start = ts
    describe(state, index, mask, values, spans, data)
    return index


@kernel
def executed(
    state: st.State, index: int, mask: int, values: np.ndarray, spans: np.ndarray, data: np.ndarray
) -> None:
    """An execve has succeeded."""
    describe(state, index, mask, values, spans, data)
    thread = state.threads[index]
    if state.users[thread.table] == 1:  # or it is another process's, too, from which this one has parted
        close_on_exec(state, i64(thread.table))
    if spans[CWD, 1] > 1 and thread.cwd < 0:
        thread.cwd = path_from(state, i64(-1), data, spans[CWD, 0], spans[CWD, 1])
    path = text_number(state, data, spans[EXEPATH, 0], spans[EXEPATH, 1])
    if path < 0:
        path = (
            path_from(state, i64(thread.cwd), data, spans[PATH, 0], spans[PATH, 1])
            if spans[PATH, 0] >= 0
            else -1
        )
    state.threads[index].path = path


@kernel
def ended(state: st.State, index: int) -> None:
    """A thread is gone; its id may come again."""
    thread = state.threads[index]
    leave_table(state, i64(thread.table))
    thread.table = -1
    thread.alive = 0


@routine
def moved(
    state: st.State, index: int, to_fd: bool, values: np.ndarray, spans: np.ndarray, data: np.ndarray
) -> None:
    """A thread has another working directory."""
    thread = state.threads[index]
    if to_fd:
        entry = lookup(state, i64(thread.table), values[ARG0])
        thread.cwd = state.fds[entry].name if entry >= 0 else -1
    elif spans[PATH, 0] >= 0:
        thread.cwd = path_from(state, i64(thread.cwd), data, spans[PATH, 0], spans[PATH, 1])
