"""What sysdig prints of an event's parameters against what our rows say of the call, one by one."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import polars as pl

from stratokit.formats.scap.params import FLAGS, convert, tables
from stratokit.schema import scap

NUMBERS = {"ret", "arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "size"}
TEXTS = {"path", "path2", "data"}
# What sysdig prints of a parameter that nobody recorded: zero, minus one, or nothing.
UNTOLD = re.compile(r"^(0|-1|NULL|)(\(.*\)|s)?$")
DATA_SHOWN = 80
AT_FDCWD = -100


@functools.cache
def _tables() -> Any:
    return tables()


def split(params: tuple[scap.Param, ...], text: str) -> dict[str, str]:
    """`name=value name=value`, where values may have spaces."""
    # sysdig 0.29.3 has another name for one.
    found, names = {}, [{"vpgid": "pgid"}.get(param.name, param.name) for param in params]
    for n, name in enumerate(names):
        if not text:
            break  # events of older writers have fewer
        head, text = text[: len(name) + 1], text[len(name) + 1 :]
        assert head == f"{name}=", (head, names)
        following = f" {names[n + 1]}=" if n + 1 < len(names) else None
        # Payload may look like the next name; nothing behind it can.
        at = -1 if following is None else text.find(following)
        at = len(text) if at < 0 else at
        found[name], text = text[:at], text[at + 1 :]
    return found


def _number(param: scap.Param, row: dict[str, Any]) -> int | None:
    if param.place == "size":
        return max(row["ret"], 0)
    value = row[param.place]
    if value is None:
        return None
    signed = param.type in ("fd", "pid", "errno") or param.type.startswith("int")
    if signed and param.place != "ret":
        value = int(np.int32(np.uint32(value & 0xFFFFFFFF)))
    return int(convert(np.int64(np.uint64(value % (1 << 64))), FLAGS.index(param.flags), 0, _tables()))


def _is_number(param: scap.Param, told: str, ours: int) -> bool:
    """Whether a text begins with our number, cut to the parameter's width, in whatever base."""
    shown = re.match(r"-?[0-9A-F]+", told)
    width = {"8": 8, "16": 16, "32": 32}.get(param.type.lstrip("abcdefghijklmnopqrstuvwxyz"), 64)
    width = 32 if param.type in ("mode", "uid", "gid") else width
    mask = (1 << width) - 1
    if shown is None:
        return False
    bases = [10, 16, 8] if re.fullmatch(r"-?[0-9]+", shown[0]) else [16]
    return any(
        int(shown[0], base) & mask == ours & mask
        for base in bases
        if base != 8 or re.fullmatch(r"-?[0-7]+", shown[0])
    )


def _is_text(param: scap.Param, told: str, ours: Any) -> bool:
    if param.place == "data":
        shown = bytes(ours or b"").rstrip(b"\0")
        printed = "".join(chr(c) if 32 <= c < 127 else "." for c in bytes(ours or b"")[:DATA_SHOWN])
        return told == printed.rstrip(" ") or told.rstrip(".") == printed.rstrip(". ") or not shown
    return told == (ours or "") or (ours is not None and told.startswith(f"{ours}("))


def _is_address(param: scap.Param, told: str, row: dict[str, Any]) -> bool:
    """Ports and addresses of both ends, or of the one that was passed in."""
    local, remote = (f"{row[f'{end}_ip']}:{row[f'{end}_port']}" for end in ("src", "dst"))
    if row["dst_ip"] is None:
        return told in ("NULL", "") or (row["path"] or "") in told or row["fd_name"] in told
    if param.type == "sockaddr":
        return told in (remote, local)
    zeros = ("0.0.0.0:0", ":::0")
    locals_ = (local,) if row["src_ip"] is not None else zeros
    return told in {f"{a}->{remote}" for a in locals_} | {f"{remote}->{a}" for a in locals_}


def differences(rows: pl.DataFrame, column: str = "evt.args") -> list[tuple[Any, ...]]:
    """(call, parameter, ours, theirs) where they differ; `type` is that of the event in `column`."""
    found = []
    for row in rows.iter_rows(named=True):
        event = scap.events()[row["type"] & ~1]
        known = event.known
        if known is None or row[column] is None or event.type == 0:
            continue
        params = event.params(row["type"])[: known[row["type"] & 1]]
        for name, told in split(params, row[column].rstrip(" ")).items():
            param = next(param for param in params if param.name.endswith(name))
            ours: Any = None
            if param.place in NUMBERS:
                ours = _number(param, row)
                same = UNTOLD.match(told) is not None if ours is None else _is_number(param, told, ours)
            elif param.place in TEXTS:
                ours = row[param.place]
                same = _is_text(param, told, ours)
            elif param.type in ("sockaddr", "socktuple"):
                ours = row["fd_name"]
                same = _is_address(param, told, row)
            elif param.place:
                continue  # of processes, which have rows of their own, and new descriptors
            else:
                same = UNTOLD.match(told) is not None or param.type in ("dyn", "fdlist", "bytebuf")
            if not same:
                found.append((row["syscall"], name, ours, told))
    return found
