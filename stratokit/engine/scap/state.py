"""What is known while a scap file goes by: threads, descriptors, texts. Flat arrays that kernels can use.

Memory: 150 bytes for each thread id that occurs, 100 for each descriptor that was open at once in a process,
and every distinct text once; not with the number of events.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stratokit.engine.scap.hashing import refill
from stratokit.formats.scap.walk import EVENT

THREAD = np.dtype(
    [
        ("tid", "<i8"),
        ("pid", "<i8"),  # -1: unknown
        ("ptid", "<i8"),
        ("start", "<i8"),  # -1: began before the capture
        ("enter_number", "<i8"),  # 0: the thread is in no system call
        ("table", "<i4"),  # of descriptors, shared by the threads of a process
        ("comm", "<i4"),
        ("cmdline", "<i4"),
        ("path", "<i4"),
        ("cwd", "<i4"),
        ("used", "<i4"),  # the descriptor that was used last
        ("cgroups", "<i4"),
        ("uid", "<i8"),
        ("gid", "<i8"),
        ("born", "u1"),  # 1: its own event told of its birth, 2: its parent's, 3: both
        ("alive", "u1"),
    ],
    align=True,
)
FD = np.dtype(
    [
        ("inode", "<u8"),
        ("next", "<i4"),  # of the same table
        ("fd", "<i4"),
        ("name", "<i4"),
        ("shown", "<i4"),  # as rows name it: both ends of a socket, `pipe:[5]`; UNTOLD: not made yet
        ("local", "<i4"),
        ("remote", "<i4"),
        ("device", "<u4"),
        ("local_port", "<u2"),
        ("remote_port", "<u2"),
        ("kind", "u1"),
        ("family", "u1"),
        ("datagram", "u1"),
        ("open", "u1"),
        ("cloexec", "u1"),  # a program that is run does not get it
        ("has_inode", "u1"),
    ],
    align=True,
)
KINDS = (None, "file", "directory", "socket", "pipe", "char", "block", "anon")
UNTOLD = -2
STREAM, DATAGRAM = 1, 2  # in `datagram`; 0 is unknown
FILE, DIRECTORY, SOCKET, PIPE, ANON = 1, 2, 3, 4, 7

# Positions in `counts`.
THREADS, FDS, TABLES, TEXTS, HEAP, FREE_TABLES, LARGEST, UNFOLLOWED, FORGOTTEN = range(9)
# Beyond this many descriptors a forked process begins without those of its parent.
FDS_MAX = 1 << 23
NAME_BYTES = 1 << 20
NO_PATH = (1 << 64) - 1


class State(NamedTuple):
    """Arrays with room to grow; `counts` says how much of each is in use."""

    threads: np.ndarray
    thread_keys: np.ndarray
    thread_slots: np.ndarray
    enters: np.ndarray
    fds: np.ndarray
    fd_keys: np.ndarray
    fd_slots: np.ndarray
    heads: np.ndarray
    users: np.ndarray
    sizes: np.ndarray
    free: np.ndarray
    heap: np.ndarray
    text_at: np.ndarray
    text_keys: np.ndarray
    text_slots: np.ndarray
    path_keys: np.ndarray  # of what was asked for last: (directory + 1) << 32 | path as it was given
    path_names: np.ndarray
    counts: np.ndarray


def empty() -> State:
    """Nothing is known; room for a while."""
    return State(
        np.zeros(1024, THREAD),
        np.zeros(1024, np.uint64),
        np.zeros(4096, np.int32),
        np.zeros(1024, EVENT),
        np.zeros(4096, FD),
        np.zeros(4096, np.uint64),
        np.zeros(16384, np.int32),
        np.full(1024, -1, np.int32),
        np.zeros(1024, np.int32),
        np.zeros(1024, np.int32),
        np.zeros(1024, np.int32),
        np.zeros(4 << 20, np.uint8),
        np.zeros(8193, np.int64),
        np.zeros(8192, np.uint64),
        np.zeros(32768, np.int32),
        np.full(4096, NO_PATH, np.uint64),
        np.zeros(4096, np.int32),
        np.zeros(9, np.int64),
    )


def _larger(array: np.ndarray, fill: Any = 0) -> np.ndarray:
    more = np.full(array.size, fill, array.dtype) if fill else np.zeros(array.size, array.dtype)
    return np.concatenate([array, more])


def _slots(keys: np.ndarray, count: int) -> np.ndarray:
    slots = np.zeros(4 * keys.size, np.int32)
    refill(slots, keys, count)
    return slots


def grown(state: State, heap_bytes: int, fds: int) -> State:
    """The state with room for one more event that may need so much, and a margin."""
    counts = state.counts
    changes: dict[str, np.ndarray] = {}
    if counts[THREADS] + 8 > state.threads.size:
        keys = _larger(state.thread_keys)
        changes |= {
            "threads": _larger(state.threads),
            "enters": _larger(state.enters),
            "thread_keys": keys,
            "thread_slots": _slots(keys, int(counts[THREADS])),
        }
    if counts[TABLES] + 8 > state.heads.size:
        changes |= {
            "heads": _larger(state.heads, -1),
            "users": _larger(state.users),
            "sizes": _larger(state.sizes),
            "free": _larger(state.free),
        }
    if counts[FDS] + fds + 8 > state.fds.size:
        entries, keys = state.fds, state.fd_keys
        while counts[FDS] + fds + 8 > entries.size:
            entries, keys = _larger(entries), _larger(keys)
        changes |= {"fds": entries, "fd_keys": keys, "fd_slots": _slots(keys, int(counts[FDS]))}
    if counts[TEXTS] + 16 > state.text_keys.size:
        keys = _larger(state.text_keys)
        changes |= {
            "text_at": np.concatenate([state.text_at, np.zeros(state.text_keys.size, np.int64)]),
            "text_keys": keys,
            "text_slots": _slots(keys, int(counts[TEXTS])),
        }
    heap = state.heap
    while counts[HEAP] + heap_bytes > heap.size:
        heap = _larger(heap)
    return state._replace(heap=heap, **changes)
