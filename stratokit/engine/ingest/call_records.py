"""Sections and arguments of system call records: which descriptors, folders and files a call worked on."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.formats import events
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.formats.events import Batch

# Section "file" of a syscall record (bpf/syscalls.c, struct file_info).
FILE = np.dtype(
    [("identity", "<u8"), ("cookie", "<u8"), ("inode", "<u8"), ("device", "<u4"), ("mode", "<u4")]
)
FILE_BYTES = FILE.itemsize
# The part of `mode` that is the type of file (S_IFMT of inode(7)).
FILE_TYPE = 0o170000


def file_section(batch: Batch) -> Any:
    """Section "file" of every record, zero where it has none."""
    start, length = batch.sections["file"]
    data, _ = events.gather(batch.data, start, np.where(length == FILE_BYTES, FILE_BYTES, 0))
    result = np.zeros(start.size, FILE)
    result[length == FILE_BYTES] = data.view(FILE)
    return result


def raw_args(batch: Batch) -> Any:
    """Raw arguments as (n, 6) u64, zero beyond those that a call has."""
    start, length = batch.sections["args"]
    result = np.zeros((start.size, 6), np.uint64)
    for index in range(6):
        has = length >= 8 * (index + 1)
        data, _ = events.gather(batch.data, start[has] + 8 * index, np.full(int(has.sum()), 8))
        result[has, index] = data.view("<u8")
    return result


def descriptor(batch: Batch, fd_arg: Any, args: Any = None) -> Any:
    """The fd that each call worked on or returned, or the first of two that it made, -1 for none (i32);
    `fd_arg` is indexed by call number.
    """
    args = raw_args(batch) if args is None else args
    which = fd_arg[batch.fixed["syscall"]]
    given = args[np.arange(which.size), np.maximum(which, 0)].astype(np.uint32).view(np.int32)
    has = (which >= 0) & (batch.sections["args"][1] > 8 * which)
    return np.where(which == -2, np.maximum(batch.fixed["ret"], -1), np.where(has, given, -1)).astype(
        np.int32
    )


def second_descriptor(batch: Batch, args: Any) -> Any:
    """The second fd that each call made, -1 for none (i32), and how many arguments the others have."""
    which = _pair_words()[batch.fixed["syscall"]]
    count = batch.sections["args"][1] // 8
    pair = (which > 0) & (count > which)
    second = args[np.arange(which.size), which].view(np.uint32).reshape(-1, 2)[:, 1]
    return np.where(pair, second.view(np.int32), -1).astype(np.int32), count - pair


@functools.cache
def _pair_words() -> Any:
    """For each call number the index of the word with two descriptors, behind all arguments; 0 for none."""
    table = np.zeros(1 << 16, np.int64)
    for number, call in load.syscalls().items():
        if call.makes_two:
            table[number] = len(call.args)
    return table


def fd_arguments() -> Any:
    """For each call number the index of its fd argument, or of the word with the two that it made; -2 when
    it returns one, -1 when it has none.
    """
    table = np.full(1 << 16, -1, np.int64)
    for number, call in load.syscalls().items():
        kinds = [kind for _, kind in call.args]
        table[number] = -2 if call.returns == "fd" else kinds.index("fd") if "fd" in kinds else -1
    return np.where(_pair_words() > 0, _pair_words(), table)


# Values of `dirfd` that are no descriptor: the current directory (fcntl.h), and a name that is not relative
# to any.
AT_FDCWD, NO_FOLDER = -100, -101
# First paths that name no file, or are meant from elsewhere: a link's target from where the link is.
_NOT_RELATIVE = frozenset(("memfd_create", "mount", "symlink", "symlinkat"))


def folder_arguments() -> tuple[Any, Any]:
    """For each call number, for its first and second path: the index of the dirfd argument that a relative
    path is meant from, AT_FDCWD for the current directory, NO_FOLDER where it is not to be completed.
    """
    tables = (np.full(1 << 16, NO_FOLDER, np.int64), np.full(1 << 16, NO_FOLDER, np.int64))
    for number, call in load.syscalls().items():
        folder, path = AT_FDCWD, 0
        for index, (_, kind) in enumerate(call.args):
            if kind == "dirfd":
                folder = index
            elif kind == "path" and path < len(tables):
                if path or call.name not in _NOT_RELATIVE:
                    tables[path][number] = folder
                path += 1
    return tables


def folder_of(batch: Batch, folder_arg: Any, args: Any = None) -> Any:
    """The dirfd that each call's path is meant from (i32), AT_FDCWD or NO_FOLDER."""
    args = raw_args(batch) if args is None else args
    which = folder_arg[batch.fixed["syscall"]]
    given = args[np.arange(which.size), np.maximum(which, 0)].astype(np.uint32).view(np.int32)
    return np.where(which >= 0, given, which).astype(np.int32)
