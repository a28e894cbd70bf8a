"""Which system calls are recorded, and what the kernel program reads of each: schemas/syscalls as bytes."""

from __future__ import annotations

import difflib
import struct

from stratokit.errors import UsageError
from stratokit.schema import load
from stratokit.schema.model import Syscall

DEFAULT_GROUPS = ("network", "descriptor", "file", "process")
# An accepted connection gets its owner when accept returns, so packets need these where calls are looked at.
OWNER_CALLS = ("accept", "accept4")
# Relative paths are meant from the current directory, so whoever records paths needs these.
FOLDER_CALLS = ("chdir", "fchdir")


def names_of(text: str) -> tuple[str, ...]:
    """As `select`, the names."""
    table = load.syscalls()
    return tuple(sorted(table[number].name for number in select(text)))


def names_files(call: Syscall) -> bool:
    """Whether it gives an open file its name, so that other calls on it can be told by that."""
    kinds = [kind for _, kind in call.args]
    return (call.returns == "fd" and "path" in kinds) or call.name in ("bind", "connect")


NONE = 255
SPEC = struct.Struct("<16B")  # struct syscall_spec of bpf/syscalls.c
_DATA_KINDS = {"buffer": 1, "iovec": 2, "msghdr": 3, "mmsghdr": 4}
_NO_RETURN = frozenset(("exit", "exit_group"))
_CHILD_RETURNS = frozenset(("fork", "vfork", "clone", "clone3"))


def select(text: str) -> frozenset[int]:
    """Numbers of the calls that `--syscalls TEXT` names: all, default, none, or names and groups with commas.

    Raises:
        UsageError: a word is neither, with the nearest one that is.
    """
    table = load.syscalls()
    by_name = {call.name: call.number for call in table.values()}
    groups = load.syscall_groups()
    chosen: set[int] = set()
    for word in (part.strip() for part in text.split(",")):
        if word == "all":
            chosen.update(table)
        elif word == "default":
            chosen.update(n for n, call in table.items() if call.group in DEFAULT_GROUPS)
        elif word in groups:
            chosen.update(n for n, call in table.items() if call.group == word)
        elif word in by_name:
            chosen.add(by_name[word])
        elif word != "none":
            near = difflib.get_close_matches(word, [*by_name, *groups, "all", "default", "none"], 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise UsageError(
                f"--syscalls: unknown name {word!r}{hint} "
                f"Groups are {', '.join(groups)}; also all, default, none."
            )
    return frozenset(chosen)


def owner_calls() -> frozenset[int]:
    """Numbers of OWNER_CALLS."""
    return frozenset(number for number, call in load.syscalls().items() if call.name in OWNER_CALLS)


def pack(call: Syscall, wanted: bool = True, unfiltered: bool = False) -> bytes:
    """`struct syscall_spec` for one call; `unfiltered` where others are named by what it did."""
    fd = path = path2 = address = data = fds = NONE
    address_out = data_kind = 0
    for index, (_, kind) in enumerate(call.args):
        base, _, way = kind.rpartition("_") if kind.endswith(("_in", "_out")) else (kind, "", "")
        if kind == "fd" and fd == NONE:
            fd = index
        elif kind == "path":
            path, path2 = (index, path2) if path == NONE else (path, index)
        elif base == "sockaddr":
            address, address_out = index, int(way == "out")
        elif base in _DATA_KINDS:
            data, data_kind = index, _DATA_KINDS[base]
        elif base == "fds":
            fds = index
    return SPEC.pack(
        wanted,
        len(call.args),
        fd,
        path,
        path2,
        address,
        address_out,
        data,
        data_kind,
        call.returns == "fd",
        call.name == "close",
        call.name in _NO_RETURN,
        call.name in _CHILD_RETURNS,
        call.manages,
        unfiltered,
        fds,
    )
