"""Rows as the kernels make them, in bulk: calls, other events, and what became of processes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stratokit.engine.scap.decode import SPANS
from stratokit.formats.scap.params import NUMBERS

SYSCALL, OTHER, UNREADABLE = 0, 1, 2
ROW = np.dtype(
    [
        ("ts", "<i8"),
        ("end", "<i8"),
        ("duration", "<i8"),  # -1: the entry or the exit was not seen
        ("tid", "<i8"),
        ("pid", "<i8"),
        ("start", "<i8"),
        ("enter_at", "<i8"),
        ("enter_size", "<i8"),
        ("enter_number", "<i8"),
        ("exit_at", "<i8"),
        ("exit_size", "<i8"),
        ("exit_number", "<i8"),
        ("data_at", "<i8"),
        ("data_size", "<i8"),  # -1: the event has none
        ("mask", "<i8"),
        ("inode", "<u8"),
        ("fd", "<i8"),  # -1: none
        ("comm", "<i4"),
        ("cgroups", "<i4"),
        ("path", "<i4"),
        ("path2", "<i4"),
        ("fd_name", "<i4"),
        ("local", "<i4"),
        ("remote", "<i4"),
        ("local_port", "<u2"),
        ("remote_port", "<u2"),
        ("type", "<u2"),
        ("kind", "u1"),
        ("fd_kind", "u1"),
        ("has_inode", "u1"),
        ("family", "u1"),
        ("datagram", "u1"),
        ("device", "<u4"),
    ],
    align=True,
)
SNAPSHOT, FORK, EXECUTED, ENDED = range(4)
PROCESS = np.dtype(
    [
        ("ts", "<i8"),
        ("start", "<i8"),
        ("tid", "<i8"),
        ("pid", "<i8"),
        ("ptid", "<i8"),
        ("uid", "<i8"),
        ("gid", "<i8"),
        ("exit_status", "<i8"),  # -1: unknown
        ("comm", "<i4"),
        ("cmdline", "<i4"),
        ("path", "<i4"),
        ("cgroups", "<i4"),
        ("event", "u1"),
    ],
    align=True,
)


class Out(NamedTuple):
    """Rows that were made; `used` says how many rows and how many process rows."""

    rows: np.ndarray
    values: np.ndarray
    processes: np.ndarray
    used: np.ndarray


def room(events: int) -> Out:
    """For the rows of so many events: each gives one, and may end another that waited."""
    return Out(
        np.empty(2 * events, ROW),
        np.empty((2 * events, NUMBERS), np.int64),
        np.empty(events, PROCESS),
        np.zeros(2, np.int64),
    )


class Scratch(NamedTuple):
    """Where one event is taken apart."""

    spans: np.ndarray
    ends: np.ndarray
    facts: np.ndarray


def scratch() -> Scratch:
    """For `follow`."""
    return Scratch(np.zeros((SPANS, 2), np.int64), np.zeros((2, 16), np.uint8), np.zeros(4, np.int64))
