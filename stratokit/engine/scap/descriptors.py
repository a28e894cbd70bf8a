"""What descriptors stand for, followed through the calls that make, copy and close them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.engine.scap import state as st
from stratokit.engine.scap.decode import AF_UNIX, BOTH, FAMILY, GIVEN, PATH, SOURCE_PORT, TARGET_PORT
from stratokit.engine.scap.hashing import find, put
from stratokit.engine.scap.texts import (
    ARROW,
    PIPE_NAME,
    address_text,
    append,
    append_end,
    append_number,
    kept,
    path_named,
    text_number,
)
from stratokit.formats.scap.params import EFFECT, PLACE
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.kernels import lean_routine as routine

i64: Any = np.int64
u64: Any = np.uint64

RET, ARG0, ARG1, ARG2, ARG3 = (PLACE[n] for n in ("ret", "arg0", "arg1", "arg2", "arg3"))
INODE, DEVICE, FD1, FD2, HOW = (PLACE[n] for n in ("inode", "device", "fd1", "fd2", "how"))
OPEN, DUP, FCNTL, SOCKET, CONNECT = (EFFECT[n] for n in ("open", "dup", "fcntl", "socket", "connect"))
ACCEPT, BIND, SENDTO, RECVFROM = (EFFECT[n] for n in ("accept", "bind", "sendto", "recvfrom"))
PIPE, SOCKETPAIR, CLOSE_RANGE = (EFFECT[n] for n in ("pipe", "socketpair", "close_range"))
EVENTFD, SIGNALFD, TIMERFD, MEMFD = (EFFECT[n] for n in ("eventfd", "signalfd", "timerfd", "memfd"))
ALWAYS_CLOSED = (EFFECT["bpf"], EFFECT["io_uring"], EFFECT["pidfd"])
ANONYMOUS = EFFECT["eventfd"]  # this and all after it give a descriptor of no file
AT_FDCWD = -100
O_DIRECTORY, O_TMPFILE = 0o200000, 0o20000000
O_CLOEXEC = 0o2000000  # which SOCK_CLOEXEC and the like are, too
F_DUPFD, F_SETFD, F_DUPFD_CLOEXEC = 0, 2, 1030
MFD_CLOEXEC, FD_CLOEXEC, CLOSE_RANGE_CLOEXEC = 1, 1, 4
EINPROGRESS = -115
TYPE_MASK = 15
FD_LIMIT = 1 << 31


@part
def key_of(table: int, fd: int) -> Any:
    """Key of a descriptor in the hash table."""
    return u64(table) << u64(32) | u64(fd)


@part
def lookup(state: st.State, table: int, fd: int) -> Any:
    """Entry of an open descriptor, or -1."""
    if fd < 0 or fd >= FD_LIMIT:
        return -1
    entry = find(state.fd_slots, state.fd_keys, key_of(table, fd))
    return entry if entry >= 0 and state.fds[entry].open else -1


@part
def made(state: st.State, table: int, fd: int, kind: int, name: int) -> Any:
    """A new descriptor's entry, everything else of it unknown; -1 for a number that cannot be."""
    if fd < 0 or fd >= FD_LIMIT:
        return -1
    key = key_of(table, fd)
    entry = find(state.fd_slots, state.fd_keys, key)
    if entry < 0:
        entry = state.counts[st.FDS]
        state.counts[st.FDS] += 1
        state.fd_keys[entry] = key
        put(state.fd_slots, key, entry)
        state.fds[entry].fd = fd
        state.fds[entry].next = state.heads[table]
        state.heads[table] = entry
        state.sizes[table] += 1
        state.counts[st.LARGEST] = max(state.counts[st.LARGEST], i64(state.sizes[table]))
    found = state.fds[entry]
    found.kind = kind
    found.name = name
    found.shown = st.UNTOLD
    found.inode = 0
    found.has_inode = 0
    found.device = 0
    found.local = -1
    found.remote = -1
    found.local_port = 0
    found.remote_port = 0
    found.family = 0
    found.datagram = 0
    found.open = 1
    found.cloexec = 0
    return i64(entry)


@kernel
def opened(state: st.State, table: int, fd: int, kind: int, name: int) -> Any:
    """As `made`, for what happens seldom."""
    return made(state, i64(table), i64(fd), i64(kind), i64(name))


@routine
def copied(state: st.State, source: int, table: int, fd: int) -> None:
    """`fd` of `table` becomes what entry `source` is."""
    entry = opened(state, table, fd, 0, -1)
    if entry < 0 or entry == source:
        return
    next_, number = state.fds[entry].next, state.fds[entry].fd
    state.fds[entry] = state.fds[source]
    state.fds[entry].next = next_
    state.fds[entry].fd = number


@routine
def closed_from(state: st.State, table: int, first: int, last: int, later: bool) -> None:
    """Close all descriptors of a range, or not before a program is run."""
    entry = state.heads[table]
    while entry >= 0:
        if first <= state.fds[entry].fd <= last:
            if later:
                state.fds[entry].cloexec = 1
            else:
                state.fds[entry].open = 0
        entry = state.fds[entry].next


@kernel
def set_ends(
    state: st.State,
    entry: int,
    local: np.ndarray,
    local_port: int,
    remote: np.ndarray,
    remote_port: int,
    ends: int,
) -> None:
    """Addresses of a socket; `ends` is 1 for the local one, 2 for the remote one, 3 for both."""
    found = state.fds[entry]
    found.shown = st.UNTOLD
    if ends & 1:
        found.local = address_text(state, local)
        found.local_port = local_port
    if ends & 2:
        found.remote = address_text(state, remote)
        found.remote_port = remote_port


@routine
def spelled(state: st.State, entry: int) -> Any:
    """Number of the name that rows have: a path, both ends of a socket, or the kernel's own for a pipe."""
    found = state.fds[entry]
    name = i64(found.name)
    if found.local >= 0:
        end = append_end(state, i64(0), found.local, found.local_port)
        if found.remote >= 0:
            end = append_end(state, append(state, end, ARROW, 0, 2), found.remote, found.remote_port)
        name = i64(kept(state, end))
    elif name < 0 and found.kind == st.PIPE and found.has_inode:
        name = i64(kept(state, append_number(state, append(state, i64(0), PIPE_NAME, 0, 6), found.inode, 93)))
    found.shown = name
    return name


@routine
def _socket_call(
    state: st.State, table: int, effect: int, values: np.ndarray, spans: np.ndarray, data: np.ndarray,
    addresses: np.ndarray, facts: np.ndarray, later: bool,
) -> None:  # fmt: skip
    """connect, accept, bind, and what datagrams say about both ends."""
    fd = values[RET] if effect == ACCEPT else values[ARG0]
    if effect == ACCEPT:
        entry = opened(state, table, fd, st.SOCKET, -1)
        if entry >= 0:
            state.fds[entry].datagram = st.STREAM
            state.fds[entry].cloexec = later
    else:
        entry = lookup(state, table, fd)
        if entry < 0 and facts[GIVEN]:
            entry = opened(state, table, fd, st.SOCKET, -1)
    if entry < 0 or not facts[GIVEN]:
        return
    found = state.fds[entry]
    if effect in (SENDTO, RECVFROM) and found.family and found.datagram != st.DATAGRAM:
        return  # of a connection both ends are known already
    found.family = facts[FAMILY]
    if facts[FAMILY] == AF_UNIX:
        name = text_number(state, data, spans[PATH, 0], spans[PATH, 1])
        if name >= 0:
            state.fds[entry].name = name
            state.fds[entry].shown = st.UNTOLD
        return
    source, target = addresses[0], addresses[1]
    source_port, target_port = facts[SOURCE_PORT], facts[TARGET_PORT]
    if effect == BIND:
        set_ends(state, entry, target, target_port, target, target_port, 1)
    elif facts[GIVEN] != BOTH:
        set_ends(state, entry, target, target_port, target, target_port, 2)
    elif effect in (ACCEPT, RECVFROM):  # inbound: the source is the remote end
        set_ends(state, entry, target, target_port, source, source_port, 3)
    else:
        set_ends(state, entry, source, source_port, target, target_port, 3)


@part
def open_file(
    state: st.State, table: int, cwd: int, raw: int, mask: int, values: np.ndarray, spans: np.ndarray,
    data: np.ndarray,
) -> None:  # fmt: skip
    """An open has returned a descriptor; its path is text `raw`."""
    base = cwd
    if mask >> ARG0 & 1 and values[ARG0] != AT_FDCWD:
        entry = lookup(state, table, i64(np.int32(values[ARG0])))
        base = i64(state.fds[entry].name) if entry >= 0 else i64(-1)
    name = i64(-1)
    if spans[PATH, 0] >= 0:
        name = path_named(state, base, raw, data, spans[PATH, 0], spans[PATH, 1])
    flags = values[ARG2] if mask >> ARG0 & 1 else values[ARG1]
    if mask >> HOW & 1:
        flags = values[HOW]
    # A file without a name has the bit of directories among its flags.
    kind = st.DIRECTORY if flags & O_DIRECTORY and not flags & O_TMPFILE else st.FILE
    entry = made(state, table, values[RET], kind, name)
    if entry >= 0:
        state.fds[entry].cloexec = flags & O_CLOEXEC != 0
    if entry >= 0 and mask >> INODE & 1 and values[INODE]:
        state.fds[entry].inode = values[INODE]
        state.fds[entry].device = values[DEVICE]
        state.fds[entry].has_inode = 1


@routine
def close_on_exec(state: st.State, table: int) -> None:
    """Close what a program that is run does not get."""
    entry = state.heads[table]
    while entry >= 0:
        if state.fds[entry].cloexec:
            state.fds[entry].open = 0
        entry = state.fds[entry].next


@part
def _goes_on_exec(effect: int, mask: int, values: np.ndarray) -> Any:
    """Whether the flags of a call say so of the descriptor that it makes."""
    if effect in ALWAYS_CLOSED or (effect == FCNTL and values[ARG1] == F_DUPFD_CLOEXEC):
        return True
    place, bit = ARG0, O_CLOEXEC
    if effect in (SOCKET, SOCKETPAIR, PIPE, EVENTFD, TIMERFD):
        place = ARG1
    elif effect == DUP:
        place = ARG2
    elif effect in (ACCEPT, SIGNALFD):
        place = ARG3
    elif effect == MEMFD:
        place, bit = ARG1, MFD_CLOEXEC
    return (mask >> place) & 1 == 1 and values[place] & bit != 0


@routine
def _copied_fd(state: st.State, table: int, effect: int, mask: int, values: np.ndarray, later: bool) -> None:
    """dup and the like; a copy of nothing known is nothing known."""
    if effect == FCNTL and values[ARG1] not in (F_DUPFD, F_DUPFD_CLOEXEC):
        return
    entry = lookup(state, table, values[ARG0]) if mask >> ARG0 & 1 else -1
    if entry >= 0:
        copied(state, entry, table, values[RET])
        entry = lookup(state, table, values[RET])
        if entry >= 0 and values[ARG0] != values[RET]:
            state.fds[entry].cloexec = later
        return
    entry = lookup(state, table, values[RET])
    if entry >= 0 and values[ARG0] != values[RET]:
        state.fds[entry].open = 0


@routine
def _made_pair(state: st.State, table: int, kind: int, values: np.ndarray, later: bool) -> None:
    for place in (FD1, FD2):
        entry = opened(state, table, values[place], kind, -1)
        if entry >= 0:
            state.fds[entry].cloexec = later
        if entry >= 0 and values[INODE]:
            state.fds[entry].inode = values[INODE]
            state.fds[entry].has_inode = 1


@routine
def _marked(state: st.State, table: int, fd: int, later: bool) -> None:
    """Whether a descriptor goes when a program is run."""
    entry = lookup(state, table, fd)
    if entry >= 0:
        state.fds[entry].cloexec = later


@routine
def follow_call(
    state: st.State, table: int, effect: int, mask: int, values: np.ndarray, spans: np.ndarray,
    data: np.ndarray, addresses: np.ndarray, facts: np.ndarray,
) -> None:  # fmt: skip
    """What a call that has returned, and is no open, makes of the descriptors."""
    ret = values[RET]
    later = _goes_on_exec(effect, mask, values)
    if effect in (CONNECT, ACCEPT, BIND, SENDTO, RECVFROM):
        if ret >= 0 or (effect == CONNECT and ret == EINPROGRESS):
            _socket_call(state, table, effect, values, spans, data, addresses, facts, later)
        return
    if ret < 0:
        return
    if effect == FCNTL and values[ARG1] == F_SETFD:
        if mask >> ARG2 & 1:
            _marked(state, table, values[ARG0], values[ARG2] & FD_CLOEXEC != 0)
    elif effect in (DUP, FCNTL):
        _copied_fd(state, table, effect, mask, values, later)
    elif effect == SOCKET:
        entry = opened(state, table, ret, st.SOCKET, -1)
        if entry >= 0:
            kind = values[ARG1] & TYPE_MASK
            state.fds[entry].datagram = kind if kind in (st.STREAM, st.DATAGRAM) else 0
            state.fds[entry].cloexec = later
    elif effect in (PIPE, SOCKETPAIR):
        _made_pair(state, table, st.PIPE if effect == PIPE else st.SOCKET, values, later)
    elif effect == CLOSE_RANGE:
        closed_from(state, table, values[ARG0], values[ARG1], values[ARG2] & CLOSE_RANGE_CLOEXEC != 0)
    elif effect >= ANONYMOUS:
        opened(state, table, ret, st.ANON, -1)
        _marked(state, table, ret, later)
