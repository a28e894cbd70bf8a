"""Columns of capture rows from what the kernels found: texts by number, flags to names, spans to bytes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.engine.ingest.processes import _shell_words
from stratokit.engine.ingest.syscalls import ERRNO
from stratokit.engine.scap import layout, state
from stratokit.formats.events import gather
from stratokit.formats.scap.params import PLACE
from stratokit.schema import load, scap
from stratokit.schema.cgroup_paths import container_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from stratokit.engine.scap.follower import Follower

Fields = Any  # an array of `layout.ROW`, or of numbers by place, or what gives those that are asked for
# What makes each column: only those that are asked for are made.
Makers = dict[str, "Callable[[], Any]"]
TIME = pa.timestamp("ns", "UTC")
_MOST_ERRNO = 4095


class Texts:
    """Texts of a state by number, made when they are first asked for."""

    def __init__(self, known: state.State) -> None:
        self._known = known

    def many(self, numbers: np.ndarray) -> list[str]:
        """Texts of these numbers; bytes that are no UTF-8 become U+FFFD."""
        at, heap = self._known.text_at, self._known.heap
        return [heap[at[n] : at[n + 1]].tobytes().decode("utf-8", "replace") for n in numbers.tolist()]

    def array(self, numbers: np.ndarray) -> pa.Array:
        """Texts of these numbers, which are ascending, as one array."""
        at = self._known.text_at
        sizes = at[numbers + 1] - at[numbers]
        data, ends = gather(self._known.heap, at[numbers], sizes)
        buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(data)]
        found = pa.Array.from_buffers(pa.string(), len(numbers), buffers)
        try:
            found.validate(full=True)
        except pa.ArrowInvalid:
            return pa.array(self.many(numbers), pa.string())
        return found

    def column(self, numbers: np.ndarray) -> pa.DictionaryArray:
        """A column of texts by number, null for -1."""
        distinct, codes = _distinct(numbers)
        indices = pa.array(codes, mask=numbers < 0)
        return pa.DictionaryArray.from_arrays(indices, self.array(distinct))

    def mapped(self, numbers: np.ndarray, make: Any) -> pa.DictionaryArray:
        """As `column`, of what `make` makes of each distinct text; None gives null."""
        distinct, codes = _distinct(numbers)
        made = pa.array([make(text) for text in self.many(distinct)], pa.string())
        plain = pa.DictionaryArray.from_arrays(pa.array(codes, mask=numbers < 0), pa.array(range(len(made))))
        return made.take(plain.indices).dictionary_encode()


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct numbers from 0 on, ascending, and which of them each is."""
    seen = np.zeros(int(numbers.max(initial=-1)) + 2, np.bool_)
    seen[numbers] = True
    seen[-1] = False  # where -1 went
    codes = (np.cumsum(seen) - 1).astype(np.int32)
    return np.flatnonzero(seen), np.where(numbers < 0, 0, codes[numbers]).astype(np.int32)


def cgroup_of(text: str) -> str | None:
    """The path of a list `controller=/path` NUL ...: the one that names a container, or the deepest."""
    paths = [entry.partition("=")[2] for entry in text.split("\0") if entry]
    named = [path for path in paths if container_of(path)[0]]
    return max(named or paths, key=len, default=None)


def _container(text: str) -> str | None:
    path = cgroup_of(text)
    return container_of(path)[0] if path else None


def _masked(values: np.ndarray, valid: np.ndarray) -> pa.Array:
    return pa.array(np.ascontiguousarray(values), mask=~valid)


def _bytes(data: np.ndarray, at: np.ndarray, sizes: np.ndarray, valid: np.ndarray) -> pa.Array:
    found, ends = gather(data, at, np.where(valid, sizes, 0))
    mask = pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [mask, pa.py_buffer(ends), pa.py_buffer(found)]
    return pa.Array.from_buffers(pa.large_binary(), at.size, buffers)


@functools.cache
def _names() -> tuple[list[str], list[str], list[str]]:
    """Names of events by half their type, of calls by libs' number, and by that of x86_64."""
    size = max(scap.events()) // 2 + 1
    events = [scap.events()[2 * n].call if 2 * n in scap.events() else "" for n in range(size)]
    codes = [scap.codes().get(n, "unknown") for n in range(max(scap.codes()) + 1)]
    calls = load.syscalls("x86_64")
    return events, codes, [calls[n].name if n in calls else "" for n in range(max(calls) + 1)]


def _call_names(rows: np.ndarray, values: np.ndarray) -> pa.DictionaryArray:
    events, codes, natives = _names()
    which = (rows["type"] >> 1).astype(np.int32)
    call = values[:, PLACE["call"]]
    generic = rows["type"] == 0
    known = generic & (call > 0) & (call < len(codes))
    which = np.where(known, len(events) + np.clip(call, 0, len(codes) - 1), which).astype(np.int32)
    # Writers that spare old readers a number of libs' that they lack leave that of the machine.
    native = values[:, PLACE["native"]]
    by_native = generic & ~known & (native > 0) & (native < len(natives))
    base = len(events) + len(codes)
    which = np.where(by_native, base + np.clip(native, 0, len(natives) - 1), which).astype(np.int32)
    lacking = generic & ~known & ~by_native
    return pa.DictionaryArray.from_arrays(pa.array(which, mask=lacking), pa.array(events + codes + natives))


def _whose(rows: np.ndarray, texts: Texts) -> Makers:
    return {
        "ts": lambda: pa.array(rows["ts"], TIME),
        "pid": lambda: _masked(rows["pid"].astype(np.uint32), rows["pid"] >= 0),
        "tid": lambda: _masked(rows["tid"].astype(np.uint32), rows["tid"] >= 0),
        "comm": lambda: texts.column(rows["comm"]),
        "process_start": lambda: pa.array(rows["start"], TIME, mask=rows["start"] < 0),
        "cgroup": lambda: texts.mapped(rows["cgroups"], cgroup_of),
        "container_id": lambda: texts.mapped(rows["cgroups"], _container),
    }


def _argument(rows: np.ndarray, values: np.ndarray, n: int) -> pa.Array:
    place = PLACE[f"arg{n}"]
    has = rows["mask"] >> place & 1 == 1
    return _masked(np.ascontiguousarray(values[:, place]).view(np.uint64), has)


def syscalls(follower: Follower, out: layout.Out, kind: int, names: Collection[str]) -> pa.Table:
    """Rows of kind syscall (`layout.SYSCALL`) or event (others), with the columns `names` of that kind."""
    used = int(out.used[0])
    rows, values = out.rows[:used], out.values[:used]
    wanted = (rows["kind"] == layout.SYSCALL) == (kind == layout.SYSCALL)
    if not wanted.all():
        chosen = np.flatnonzero(wanted)
        rows, values = rows[chosen], values[chosen]
    return table(rows, values, Texts(follower.known), follower.data, kind, names)


def table(
    rows: Fields, values: Fields, texts: Texts, data: np.ndarray, kind: int, names: Collection[str]
) -> pa.Table:
    """Rows of one kind, as `syscalls`. Of `rows` and `values` nothing is asked for but fields and places."""
    makers = _whose(rows, texts)
    makers |= {f"arg{n}": functools.partial(_argument, rows, values, n) for n in range(6)}
    makers |= {name: functools.partial(_text, rows, texts, name) for name in ("path", "path2")}
    for name, place in (("data", "data"), ("scap_enter", "enter"), ("scap_exit", "exit")):
        makers[name] = functools.partial(_blobs, rows, data, place)
    for part in ("enter", "exit"):
        makers[f"scap_{part}_number"] = functools.partial(_event_number, rows, f"{part}_number")
    makers |= (
        _call_columns(rows, values, texts) if kind == layout.SYSCALL else {"event": lambda: _event(rows)}
    )
    return pa.table({name: make() for name, make in makers.items() if name in names})


def _text(rows: Fields, texts: Texts, name: str) -> pa.DictionaryArray:
    return texts.column(rows[name])


def _blobs(rows: Fields, data: np.ndarray, place: str) -> pa.Array:
    size = rows[f"{place}_size"]
    return _bytes(data, rows[f"{place}_at"], size, size > 0)


def _event_number(rows: Fields, name: str) -> pa.Array:
    number = rows[name]
    return _masked(number.astype(np.uint64), number > 0)


def _event(rows: np.ndarray) -> pa.DictionaryArray:
    events = _names()[0]
    which = np.minimum(rows["type"] >> 1, len(events) - 1).astype(np.int32)
    unknown = rows["kind"] == layout.UNREADABLE
    return pa.DictionaryArray.from_arrays(pa.array(which, mask=unknown), pa.array(events))


def _error_names(ret: np.ndarray, returned: np.ndarray) -> pa.DictionaryArray:
    failed = returned & (ret < 0) & (ret >= -_MOST_ERRNO)
    codes = list(ERRNO)
    table = np.zeros(_MOST_ERRNO + 1, np.int32)
    table[[-code for code in codes]] = np.arange(len(codes))
    known = np.zeros(_MOST_ERRNO + 1, np.bool_)
    known[[-code for code in codes]] = True
    size = np.where(failed, -ret, 0)
    return pa.DictionaryArray.from_arrays(
        pa.array(table[size], mask=~(failed & known[size])), pa.array([ERRNO[code] for code in codes])
    )


def _transport(rows: np.ndarray, socket: np.ndarray) -> pa.Array:
    transport = socket & ((rows["family"] == 2) | (rows["family"] == 10)) & (rows["datagram"] > 0)
    return _masked(np.where(rows["datagram"] == state.STREAM, 6, 17).astype(np.uint8), transport)


def _device(rows: np.ndarray) -> pa.Array:
    device = rows["device"].astype(np.uint32)
    major, minor = device >> 8 & 0xFFF, (device & 0xFF) | (device >> 12 & 0xFFF00)
    return _masked(major << 20 | minor, rows["has_inode"] > 0)


def _fd_kinds(rows: np.ndarray) -> pa.DictionaryArray:
    indices = pa.array(rows["fd_kind"].astype(np.int32), mask=rows["fd_kind"] == 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array([kind or "" for kind in state.KINDS]))


def _call_columns(rows: Fields, values: Fields, texts: Texts) -> Makers:
    def returned() -> np.ndarray:
        found: np.ndarray = rows["mask"] >> PLACE["ret"] & 1 == 1
        return found

    def second() -> pa.Array:
        fd = values[:, PLACE["fd2"]]
        return _masked(fd.astype(np.int32), (rows["mask"] >> PLACE["fd2"] & 1 == 1) & (fd >= 0))

    def ret() -> np.ndarray:
        found: np.ndarray = values[:, PLACE["ret"]]
        return found

    def socket() -> np.ndarray:
        found: np.ndarray = rows["fd_kind"] == state.SOCKET
        return found

    return {
        "ip_proto": lambda: _transport(rows, socket()),
        "syscall": lambda: _call_names(rows, values),
        "duration_ns": lambda: _masked(rows["duration"].astype(np.uint64), rows["duration"] >= 0),
        "ret": lambda: _masked(ret(), returned()),
        "errno": lambda: _error_names(ret(), returned()),
        "fd": lambda: _masked(rows["fd"].astype(np.int32), rows["fd"] >= 0),
        "fd2": second,
        "fd_kind": lambda: _fd_kinds(rows),
        "fd_name": lambda: texts.column(rows["fd_name"]),
        "inode": lambda: _masked(rows["inode"], rows["has_inode"] > 0),
        "device": lambda: _device(rows),
        "src_ip": lambda: texts.column(np.where(socket(), rows["local"], -1)),
        "dst_ip": lambda: texts.column(np.where(socket(), rows["remote"], -1)),
        "src_port": lambda: _masked(rows["local_port"], socket() & (rows["local"] >= 0)),
        "dst_port": lambda: _masked(rows["remote_port"], socket() & (rows["remote"] >= 0)),
    }


_EVENTS = pa.array(["snapshot", "fork", "exec", "exit"])


def processes(follower: Follower, rows: np.ndarray) -> pa.Table:
    """Rows of kind process."""
    texts = Texts(follower.known)
    status = rows["exit_status"]
    signal = status & 0x7F
    ended = (rows["event"] == layout.ENDED) & (status >= 0)
    cmdline = pl.Series(texts.column(rows["cmdline"]).dictionary_decode()).alias("c").to_frame()
    return pa.table(
        {
            **{name: make() for name, make in _whose(rows, texts).items()},
            "event": pa.DictionaryArray.from_arrays(pa.array(rows["event"].astype(np.int32)), _EVENTS),
            "parent_pid": _masked(rows["ptid"].astype(np.uint32), rows["ptid"] > 0),
            "uid": _masked(rows["uid"].astype(np.uint32), (rows["uid"] >= 0) & (rows["uid"] < 1 << 32)),
            "gid": _masked(rows["gid"].astype(np.uint32), (rows["gid"] >= 0) & (rows["gid"] < 1 << 32)),
            "path": texts.column(rows["path"]),
            "cmdline": cmdline.select(_shell_words(pl.col("c"))).to_series().to_arrow(),
            "exit_code": _masked(
                np.where(signal > 0, 128 + signal, status >> 8 & 0xFF).astype(np.int32), ended
            ),
        }
    )
