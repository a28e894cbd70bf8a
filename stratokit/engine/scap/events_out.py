"""Rows of system calls as events: numbers, texts and addresses laid out for the kernel that writes them."""

from __future__ import annotations

import functools
import ipaddress
from typing import Any

import numpy as np
import polars as pl

from stratokit.engine.scap.people import People
from stratokit.formats.scap import blocks
from stratokit.formats.scap.fill import EVENT_OUT, PLACES_OF_BYTES, Rows
from stratokit.formats.scap.params import NUMBERS, PLACE
from stratokit.schema import load, scap

# Types whose enter events every reader numbers and uses itself: the others must not count as frames.
NUMBERED_ENTERS = (2, 22, 58, 292, 306, 326, 330)
EXECVEAT, EXECVE = 330, 292
CLONE, CLONE3, PROCEXIT, NOTIFICATION, CONTAINER_JSON, FSTAT = 222, 334, 186, 280, 324, 70
# A profile for blocks that stand among packets, where Wireshark shall show one frame a call: no reader of
# libs takes such a file, so no enter event needs to be numbered.
AMONG_PACKETS = "among packets"
_THREAD = 0x10000 | 0x400
_O_DIRECTORY, _AF_UNIX, _AT_EMPTY_PATH = 0o200000, 1, 0x1000
COLUMNS = (
    "ts", "pid", "tid", "comm", "syscall", "duration_ns", "ret", "arg0", "arg1", "arg2", "arg3", "arg4",
    "arg5", "fd", "fd2", "fd_kind", "fd_name", "path", "path2", "inode", "device", "src_ip", "src_port",
    "dst_ip", "dst_port", "data",
)  # fmt: skip
# Rows that are no system calls: what readers must know before the next one, and ends of processes.
BORN, ENDED, GONE, RUNS = "@born", "@ended", "@gone", "@runs"
FILE, PIPE, PAIR, ANON = "@file", "@pipe", "@pair", "@anon"
SOCKET, CONNECTED, ACCEPTED = "@socket", "@connected", "@accepted"
STATE, CONTAINER = "@state", "@container"
_SPECIAL = {
    CONTAINER: CONTAINER_JSON, GONE: PROCEXIT, BORN: CLONE, ENDED: PROCEXIT, RUNS: EXECVE, FILE: 306,
    PIPE: 60, PAIR: 42, ANON: 62, SOCKET: 18, CONNECTED: 22, ACCEPTED: 246, STATE: NOTIFICATION,
}  # fmt: skip
_SHOWN = (ENDED, STATE, CONTAINER)
_MAKES_NONE = ("", "generic")
_TEXTS = ("path", "path2")
_PAIR = r"^\[?([0-9a-fA-F.:]+?)\]?:(\d+)->\[?([0-9a-fA-F.:]+?)\]?:(\d+)$"


@functools.cache
def _types(profile: str) -> pl.DataFrame:
    """Event type, libs' number and the machine's number of each call by name."""
    numbers = {call.name: number for number, call in load.syscalls("x86_64").items()}
    rows: list[tuple[str, int, int, int]] = [
        (name, call.type, call.code, numbers.get(name, 0))
        if profile == "modern"
        else (name, call.known, call.code if call.code < scap.known_codes() else 0, numbers.get(name, 0))
        for name, call in scap.calls().items()
    ]
    if profile == AMONG_PACKETS:  # Wireshark 4.0 does not know clone3, whose parameters are those of clone
        rows = [(name, CLONE if type_ == CLONE3 else type_, code, n) for name, type_, code, n in rows]
    rows += [(name, type_, 0, 0) for name, type_ in _SPECIAL.items()]
    schema = {"syscall": pl.String, "type": pl.Int64, "code": pl.Int64, "native": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def makers(profile: str = "") -> list[str]:
    """Calls that make a descriptor, or those of them that readers of a profile know to."""
    calls = [call.name for call in load.syscalls("x86_64").values() if call.returns == "fd"]
    if not profile:
        return calls
    known = dict(_types(profile).select("syscall", "type").iter_rows())
    return [name for name in calls if name in known and scap.events()[known[name]].does not in _MAKES_NONE]


@functools.cache
def _arity() -> np.ndarray:
    """Parameters to write, by event type."""
    found = np.zeros(max(scap.events()) + 2, np.int64)
    for type_, event in scap.events().items():
        # First versions do not say how many parameters they have: what old readers lack makes them give up.
        found[type_] = len(event.enter) if event.known is None else event.known[0]
        found[type_ + 1] = min(event.safe, len(event.exit))
    return found


class _Blob:
    """Bytes of many columns in one buffer."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = [np.zeros(1, np.uint8)]
        self._size = 1

    def column(self, series: pl.Series) -> np.ndarray:
        """Start and size of each value, -1 for null."""
        array = series.cast(pl.Binary).rechunk().to_arrow()
        buffers = array.buffers()
        ends = np.frombuffer(buffers[1], np.int64)[array.offset : array.offset + len(array) + 1]
        data = np.frombuffer(buffers[2] or b"", np.uint8)[ends[0] : ends[-1]]
        spans = np.stack([ends[:-1] - ends[0] + self._size, np.diff(ends)], axis=1)
        spans[series.is_null().to_numpy()] = -1
        self._parts.append(data)
        self._size += data.size
        return spans

    def chosen(self, values: list[bytes], which: np.ndarray) -> np.ndarray:
        """Start and size of values[which]."""
        sizes = np.array([len(value) for value in values], np.int64)
        starts = np.cumsum(sizes) - sizes + self._size
        self._parts.append(np.frombuffer(b"".join(values), np.uint8))
        self._size += int(sizes.sum())
        return np.stack([starts[which], sizes[which]], axis=1)

    def bytes(self) -> np.ndarray:
        """Everything."""
        return np.concatenate(self._parts)


def packed(text: str) -> tuple[bytes, int]:
    """16 bytes of an address, IPv4 mapped, and its family."""
    raw = ipaddress.ip_address(text).packed
    return (raw, 10) if len(raw) == 16 else (bytes(10) + b"\xff\xff" + raw, 2)


def _addresses(series: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """16 bytes of each address, IPv4 mapped, and its family, 0 for none."""
    distinct = series.unique().drop_nulls()
    known = {}
    for text in distinct.to_list():
        try:
            known[text] = packed(text)
        except ValueError:
            continue
    ends = np.zeros((len(known) + 1, 16), np.uint8)
    families = np.zeros(len(known) + 1, np.uint8)
    for n, (raw, family) in enumerate(known.values(), 1):
        ends[n], families[n] = np.frombuffer(raw, np.uint8), family
    codes = series.replace_strict(
        list(known), list(range(1, len(known) + 1)), default=0, return_dtype=pl.Int64
    ).to_numpy()
    return ends[codes], families[codes]


def with_ends(frame: pl.DataFrame) -> pl.DataFrame:
    """Both ends of sockets, from the name of the descriptor where the call itself does not say."""
    pair = pl.col("fd_name").str.extract_groups(_PAIR).struct
    names = ("src_ip", "src_port", "dst_ip", "dst_port")
    return frame.with_columns(
        pl.coalesce(name, pair.field(str(n)).cast(frame.schema[name], strict=False)).alias(name)
        for n, name in enumerate(names, 1)
    )


def _is_unix() -> pl.Expr:
    """Calls that gave a UNIX socket the path that is its name."""
    named = pl.col("fd_name").str.contains(r"^(socket:\[|$)").not_() & pl.col("src_ip").is_null()
    called = pl.col("syscall").is_in(["bind", "connect"]) & (pl.col("fd_kind") == "socket")
    return (called & named & pl.col("dst_ip").is_null()).fill_null(value=False)


class Layout:
    """Lays rows out as events of a profile."""

    def __init__(self, profile: str, people: People, threads: dict[int, int]) -> None:
        self._profile = profile
        self._people = people
        self._threads = threads

    def rows(self, frame: pl.DataFrame) -> Rows:
        """Numbers, texts and addresses of rows that have `COLUMNS`, `version` and `code`, `native`."""
        count = frame.height
        values, has = np.zeros((count, NUMBERS), np.int64), np.zeros(count, np.int64)

        def put(place: str, series: pl.Series) -> None:
            valid = series.is_not_null().to_numpy()
            values[:, PLACE[place]] = _integers(series)
            has[valid] |= 1 << PLACE[place]

        for name in ("ret", "arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "inode", "tid", "pid"):
            put(name, frame[name])
        put("device", _device(frame["device"]))
        put("call", frame["code"])
        put("native", frame["native"])
        # Of a pipe that came to a process unseen one end is known at a time.
        lone = pl.when(pl.col("syscall").is_in([PIPE, PAIR])).then("fd")
        second = pl.coalesce("fd2", lone)
        first = pl.when(second.is_not_null()).then("fd")
        ends = frame.select(fd1=first, fd2=second).cast(pl.Int64).fill_null(-1)
        for name in ends.columns:
            put(name, ends[name])
        put("how", frame.select(pl.when(pl.col("fd_kind") == "directory").then(_O_DIRECTORY)).to_series())
        put("clone_flags", self._clone_flags(frame))
        self._of_people(frame, put)
        blob = _Blob()
        spans = np.full((count, PLACES_OF_BYTES, 2), -1, np.int64)
        for name in (*_TEXTS, "data"):
            spans[:, PLACE[name] - NUMBERS] = blob.column(frame[name])
        which = frame["version"].to_numpy()
        versions = self._people.versions
        for place, key in (("exe", "exe"), ("args", "args"), ("cgroups", "cgroups"), ("exepath", "exepath")):
            distinct = [getattr(person, key) for person in versions]
            spans[:, PLACE[place] - NUMBERS] = blob.chosen(distinct, which)
        spans[:, PLACE["comm"] - NUMBERS] = blob.column(frame["comm"])
        local, local_family = _addresses(frame["src_ip"])
        remote, remote_family = _addresses(frame["dst_ip"])
        # Who binds to port 0 gets one, which is known where the socket was seen later.
        chosen = pl.when(pl.col("syscall") == "bind", pl.col("dst_port") == 0).then("src_port")
        both = frame.select("src_port", dst_port=pl.coalesce(chosen, "dst_port"))
        ports = both.select(pl.all().fill_null(0).cast(pl.Int64)).to_numpy()
        family = np.where(remote_family > 0, remote_family, local_family)
        is_unix = frame.select(_is_unix()).to_series().to_numpy()
        family[is_unix] = _AF_UNIX
        spans[is_unix, 0] = blob.column(frame["fd_name"])[is_unix]
        # A tuple has one family: an unknown end of it is zero.
        for end, own in ((local, local_family), (remote, remote_family)):
            end[own == 0] = 0
        return Rows(values, has, blob.bytes(), spans, local, remote, np.ascontiguousarray(ports), family)

    def _clone_flags(self, frame: pl.DataFrame) -> pl.Series:
        """Flags of clone; of a thread born otherwise, that it is one."""
        flags = frame.select(pl.when(pl.col("syscall") == "clone").then("arg0").otherwise(0)).to_series()
        tids = frame.select(pl.when(pl.col("syscall") == BORN).then("tid").otherwise("ret")).to_series()
        makes = frame["syscall"].is_in(["clone3", "vfork", "fork", BORN])
        known = [tid for tid, pid in self._threads.items() if tid != pid]
        threads = tids.cast(pl.Int64).is_in(known) & makes
        return pl.select(
            pl.when(threads).then(_THREAD).otherwise(flags.cast(pl.Int64).fill_null(0))
        ).to_series()

    def _of_people(self, frame: pl.DataFrame, put: Any) -> None:
        which = frame["version"].to_numpy()
        people = self._people.versions
        for name in ("ptid", "uid", "gid"):
            values = np.array([getattr(person, name) for person in people], np.int64)[which]
            put(name, pl.Series(values))
        put("vtid", frame["tid"])
        put("vpid", frame["pid"])

    def typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows with the type of their enter event, the numbers of the call, and who the process was."""
        found = frame.join(_types(self._profile), on="syscall", how="left", maintain_order="left")
        found = found.with_columns(
            pl.col("type", "code", "native").fill_null(0), version=self._people.at(found, "end")
        )
        # With an empty name it is what fstat is, which every reader knows.
        of_fd = (pl.col("syscall") == "newfstatat") & (pl.col("arg3") & _AT_EMPTY_PATH > 0)
        of_fd &= (pl.col("type") == 0) & (pl.col("arg0") & 0xFFFFFFFF < 1 << 31)
        of_fd &= self._profile != AMONG_PACKETS
        return found.with_columns(type=pl.when(of_fd.fill_null(value=False)).then(FSTAT).otherwise("type"))

    def events(self, frame: pl.DataFrame) -> np.ndarray:
        """Events of typed rows in order of time; `entered` rows have had their enter event written."""
        enters, exits = self._enters(frame), self._exits(frame)
        found = np.concatenate([enters, exits])
        # Of equal times: what readers must know first, then entries, then exits.
        order = {name: n for n, name in enumerate(_SPECIAL, -len(_SPECIAL))}
        rank = frame["syscall"].replace_strict(order, default=0, return_dtype=pl.Int64).to_numpy()
        rank = rank[found["row"]] * 2 + (found["type"] & 1)
        return found[np.lexsort((rank, found["ts"]))]

    def _enters(self, frame: pl.DataFrame) -> np.ndarray:
        if self._profile == "modern":
            return np.zeros(0, EVENT_OUT)
        runs = pl.col("syscall") == RUNS
        wanted = frame.select(
            runs
            | ~pl.col("entered")
            & ~pl.col("syscall").str.starts_with("@")
            & (pl.col("duration_ns").is_not_null() | pl.col("ret").is_null())
        ).to_series()
        chosen = np.flatnonzero(wanted.to_numpy())
        out = self._of(frame, chosen, frame["type"].to_numpy()[chosen], frame["ts"].to_numpy()[chosen])
        numbered = np.isin(out["type"], NUMBERED_ENTERS) & (self._profile != AMONG_PACKETS)
        out["block"] = np.where(numbered, blocks.EVENT, blocks.EVENT_V1_ALIAS)
        # Current readers compare an execve with the entry before it, even if that call has returned.
        hidden = frame.select(runs).to_series().to_numpy()[chosen]
        out["block"][hidden] = blocks.EVENT_FLAGS
        out["flags"] = np.where(hidden, blocks.STATE_ONLY, 0)
        return out

    def _exits(self, frame: pl.DataFrame) -> np.ndarray:
        special = frame["syscall"].str.starts_with("@").to_numpy()
        chosen = np.flatnonzero(frame["ret"].is_not_null().to_numpy())
        types = frame["type"].to_numpy()[chosen] + 1
        ret = frame["ret"].fill_null(-1).to_numpy()[chosen]
        types = np.where((types == EXECVEAT + 1) & (ret == 0), EXECVE + 1, types)
        types = np.where(np.isin(types - 1, (PROCEXIT, NOTIFICATION, CONTAINER_JSON)), types - 1, types)
        out = self._of(frame, chosen, types, frame["end"].to_numpy()[chosen])
        # What only tells readers of the state is not shown; the end of a process is.
        hidden = special[chosen] & ~frame["syscall"].is_in(_SHOWN).fill_null(value=False).to_numpy()[chosen]
        out["block"] = np.where(hidden, blocks.EVENT_FLAGS, blocks.EVENT)
        out["block"][types == CONTAINER_JSON] = blocks.EVENT_LARGE
        out["flags"] = np.where(hidden, blocks.STATE_ONLY, 0)
        return out

    @staticmethod
    def _of(frame: pl.DataFrame, chosen: np.ndarray, types: np.ndarray, ts: np.ndarray) -> np.ndarray:
        out = np.zeros(chosen.size, EVENT_OUT)
        out["row"], out["type"], out["ts"] = chosen, types, ts
        out["tid"] = frame["tid"].cast(pl.Int64).fill_null(-1).to_numpy()[chosen]
        out["count"] = _arity()[types]
        return out


def _integers(series: pl.Series) -> np.ndarray:
    """As 64 bits whatever they mean, null as zero."""
    values = series.fill_null(0).to_numpy()
    return values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)


def _device(series: pl.Series) -> pl.Series:
    """The kernel's device number as scap files have it."""
    major, minor = series.cast(pl.Int64) // (1 << 20), series.cast(pl.Int64) & 0xFFFFF
    return (minor & 0xFF) | (major * 256) | ((minor & 0xFFF00) * 4096)
