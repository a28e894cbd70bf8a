"""Parameters of events as flat tables, which kernels index by event type and position.

On the wire an event's parameters are their lengths, then their bytes. Most are numbers of one width, text
with a NUL, or bytes; addresses begin with their family:

    sockaddr   family 1, then  IPv4 4, port 2;  IPv6 16, port 2;  or for a unix socket a path
    socktuple  family 1, then  source, port, destination, port;  for a unix socket two numbers of 8, path
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.loads import load16, load32, load64
from stratokit.schema import scap

i64: Any = np.int64
u64: Any = np.uint64

# What a parameter is: 0-3 unsigned of 1, 2, 4, 8 bytes, 4-7 signed, then the rest.
BYTES, TEXT, SOCKADDR, SOCKTUPLE, FDLIST, DYNAMIC, OPAQUE = 8, 9, 10, 11, 12, 13, 14
_WIDTHS = {"8": 0, "16": 1, "32": 2, "64": 3}
_NAMED = {
    "errno": 7, "fd": 7, "pid": 7, "fd32": 6, "pid32": 6, "uid": 2, "gid": 2, "mode": 2, "sigset": 2,
    "sigtype": 0, "syscallid": 1, "port": 1, "reltime": 3, "abstime": 3, "charbuf": TEXT, "fspath": TEXT,
    "fsrelpath": TEXT, "bytebuf": BYTES, "sockaddr": SOCKADDR, "socktuple": SOCKTUPLE, "fdlist": FDLIST,
    "dyn": DYNAMIC, "ipv4addr": OPAQUE, "ipv6addr": OPAQUE, "charbufarray": OPAQUE,
    "charbuf_pair_array": OPAQUE,
}  # fmt: skip

# Where a capture row has a parameter; kernels know these by their position.
PLACES = (
    "", "ret", "arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "inode", "device", "fd1", "fd2", "source",
    "peer", "call", "native", "size", "how", "clone_flags", "tid", "pid", "ptid", "uid", "gid", "vtid",
    "vpid", "vpgid", "pgid", "path", "path2", "data", "exe", "args", "comm", "cgroups", "cwd", "env",
    "exepath", "addr", "tuple",
)  # fmt: skip
PLACE = {name: number for number, name in enumerate(PLACES)}
NUMBERS = PLACE["pgid"] + 1  # places below are numbers, from here on bytes
EFFECTS = (
    "", "open", "close", "close_range", "dup", "fcntl", "socket", "connect", "accept", "bind", "sendto",
    "recvfrom", "pipe", "socketpair", "clone", "exec", "exit", "chdir", "fchdir", "container", "generic",
    "eventfd", "signalfd", "eventpoll", "inotify", "timerfd", "bpf", "userfaultfd", "io_uring", "memfd",
    "pidfd",
)  # fmt: skip
EFFECT = {name: number for number, name in enumerate(EFFECTS)}
FLAGS = ("", "open", "clone", "mmap", "epoll", "fcntl", "sockopt_level", "ptrace", "execveat", "pidfd")
PAIRS_MAX = 48
PARAMS_MAX = 32


class Tables(NamedTuple):
    """Everything by event type; [type, position] for parameters. `pairs` are [table, n, (Linux, scap)].

    `looked_at` are the parameters up to the last that has a place; of an exit whose entry has told the
    numbers `told`, a bit each place, `looked_after` are enough.
    """

    arity: np.ndarray
    kind: np.ndarray
    place: np.ndarray
    flags: np.ndarray
    effect: np.ndarray
    single: np.ndarray
    large: np.ndarray
    pairs: np.ndarray
    pair_count: np.ndarray
    is_value: np.ndarray
    looked_at: np.ndarray
    looked_after: np.ndarray
    told: np.ndarray


def _kind(name: str) -> int:
    if name in _NAMED:
        return _NAMED[name]
    signed = name.startswith("int")
    return _WIDTHS[name.lstrip("abcdefghijklmnopqrstuvwxyz")] + 4 * signed


@functools.cache
def tables() -> Tables:
    """Made from schemas/scap once."""
    events = scap.events()
    size = max(events) + 2
    found = Tables(
        np.zeros(size, np.uint16),
        np.full((size, PARAMS_MAX), OPAQUE, np.uint8),
        np.zeros((size, PARAMS_MAX), np.uint8),
        np.zeros((size, PARAMS_MAX), np.uint8),
        np.zeros(size, np.uint8),
        np.zeros(size, np.bool_),
        np.zeros(size, np.bool_),
        np.zeros((len(FLAGS), PAIRS_MAX, 2), np.int64),
        np.zeros(len(FLAGS), np.int64),
        np.zeros(len(FLAGS), np.bool_),
        np.zeros(size, np.uint8),
        np.zeros(size, np.uint8),
        np.zeros(size, np.int64),
    )
    for event in events.values():
        for type_ in (event.type, event.type + 1):
            params = event.params(type_)
            found.arity[type_] = len(params)
            found.effect[type_] = EFFECT[event.does]
            found.single[type_] = event.single
            found.large[type_] = event.large
            for index, param in enumerate(params):
                found.kind[type_, index] = _kind(param.type)
                found.place[type_, index] = PLACE[param.place]
                found.flags[type_, index] = FLAGS.index(param.flags)
    for number, name in enumerate(FLAGS[1:], 1):
        table = scap.flags()[name]
        rows = table.get("values") or table["bits"]
        found.pairs[number, : len(rows)] = rows
        found.pair_count[number] = len(rows)
        found.is_value[number] = "values" in table
    return with_places(found, found.place)


def with_places(tables: Tables, places: np.ndarray) -> Tables:
    """The tables with other places for parameters, 0 for those that are not needed."""
    entry = np.roll(places, 1, axis=0)
    numbers = (entry > 0) & (entry < NUMBERS)
    told = np.where(numbers, np.int64(1) << entry.astype(np.int64), 0)
    known = (places[:, :, None] == np.where(numbers, entry, 0)[:, None, :]).any(axis=2)
    return tables._replace(
        place=places,
        looked_at=_looked_at(places),
        looked_after=_looked_at(np.where(known, 0, places)),
        told=np.bitwise_or.reduce(told, axis=1),
    )


def _looked_at(places: np.ndarray) -> np.ndarray:
    """By event type: one more than the position of the last parameter with a place, 0 for none."""
    has = places > 0
    return np.where(has.any(axis=1), places.shape[1] - has[:, ::-1].argmax(axis=1), 0).astype(np.uint8)


OPEN_FLAGS = FLAGS.index("open")


@kernel
def convert(value: int, table: int, source: int, tables: Tables) -> Any:
    """Flags from column `source` of their table (0 Linux, 1 scap) to the other; unknown bits are dropped."""
    if table == 0:
        return value
    target = 1 - source
    result = i64(0)
    for k in range(tables.pair_count[table]):
        pair = tables.pairs[table, k]
        if tables.is_value[table]:
            if value == pair[source]:
                return pair[target]
        elif value & pair[source] == pair[source]:
            result |= pair[target]
    if table == OPEN_FLAGS:
        # The access mode: 0 read, 1 write, 2 both on Linux; one more in scap files, where 0 is none of them.
        access = value & 3
        result |= min(access + 1, 3) if source == 0 else max(access - 1, 0)
    return result


@part
def number(data: np.ndarray, at: int, size: int, kind: int) -> Any:
    """A number of at most 8 bytes, signed where its kind says so; longer ones are read in part."""
    if size >= 8:
        return load64(data, at)
    value = i64(0)
    if size == 4:
        value = load32(data, at)
    elif size == 2:
        value = load16(data, at)
    else:
        for k in range(size):
            value |= i64(data[at + k]) << 8 * k
    if kind & 4 and size and data[at + size - 1] & 0x80:
        value |= i64(-1) << 8 * size
    return value
