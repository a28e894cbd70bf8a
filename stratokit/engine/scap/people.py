"""Who a process was when: from rows of kind process to versions of each, for a writer of scap files."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Iterable
from typing import Any

import polars as pl

from stratokit.formats.scap import metadata as md


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    """A process from some time on, texts as scap files have them."""

    pid: int
    ptid: int = 0
    comm: bytes = b""
    exe: bytes = b""
    args: bytes = b""
    exepath: bytes = b""
    cgroups: bytes = b""
    cwd: bytes = b""
    uid: int = 0xFFFFFFFF
    gid: int = 0xFFFFFFFF

    def listed(self) -> md.Process:
        """As an entry of the process list."""
        return md.Process(
            tid=self.pid,
            pid=self.pid,
            ptid=self.ptid,
            comm=self.comm,
            exe=self.exe or self.comm,
            exepath=self.exepath,
            args=self.args,
            cwd=self.cwd or b"/",
            uid=self.uid,
            gid=self.gid,
            cgroups=self.cgroups,
        )


@functools.lru_cache(maxsize=4096)
def words(cmdline: str) -> tuple[bytes, bytes]:
    """A line as a shell would read it: its first word, and the others each with its NUL."""
    try:
        found = shlex.split(cmdline)
    except ValueError:
        found = cmdline.split()
    first, *others = found or [""]
    return first.encode(), b"".join(word.encode() + b"\0" for word in others)


class People:
    """Versions of all processes, and rows (pid, ts, version) for `join_asof`."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.versions: list[Person] = [Person(0)]
        self.at_start: list[Person] = []
        current: dict[int, Person] = {}
        times: list[tuple[int, int, int]] = []
        for row in rows.sort("ts", maintain_order=True).iter_rows(named=True):
            pid = row["pid"]
            if pid is None or row["event"] == "exit":
                continue
            parent = current.get(row["parent_pid"]) if row["event"] == "fork" else None
            current[pid] = person = _person(row, current.get(pid) if row["event"] == "exec" else parent)
            if row["event"] == "snapshot":
                self.at_start.append(person)
            times.append((pid, row["ts"], len(self.versions)))
            self.versions.append(person)
        schema = {"pid": pl.UInt32, "since": pl.Int64, "version": pl.Int64}
        self.times = pl.DataFrame(times, schema=schema, orient="row").sort("since", maintain_order=True)
        # Before it was first seen a process was what it was then.
        self._first = self.times.unique("pid", keep="first", maintain_order=True).drop("since")

    def at(self, frame: pl.DataFrame, when: str) -> pl.Series:
        """The version of each row's process at the time in column `when`; 0 for none."""
        wanted = frame.select("pid", when).with_row_index("row").sort(when)
        found = wanted.join_asof(
            self.times, left_on=when, right_on="since", by="pid", check_sortedness=False
        ).join(self._first.rename({"version": "first"}), on="pid", how="left")
        return found.sort("row").select(pl.coalesce("version", "first").fill_null(0))["version"]


def _person(row: dict[str, Any], before: Person | None) -> Person:
    """A row, with what it does not say from the process as it was, or from its parent."""
    before = before or Person(0)
    exe, args = words(row["cmdline"]) if row["cmdline"] else (before.exe, before.args)
    cgroup = row["cgroup"]
    return Person(
        pid=row["pid"],
        ptid=row["parent_pid"] or 0,
        comm=(row["comm"] or "").encode(),
        exe=exe,
        args=args,
        exepath=row["path"].encode() if row["path"] else before.exepath,
        cgroups=f"cgroup={cgroup}".encode() + b"\0" if cgroup else before.cgroups,
        cwd=row["cwd"].encode() if row.get("cwd") else before.cwd,
        uid=before.uid if row["uid"] is None else row["uid"],
        gid=before.gid if row["gid"] is None else row["gid"],
    )


def user_list(people: Iterable[Person]) -> list[md.User]:
    """Every user and group by number: a recording has no names, and the reader's host has others."""
    found = list(people)
    uids = sorted({person.uid for person in found if person.uid < 1 << 31})
    gids = sorted({person.gid for person in found if person.gid < 1 << 31})
    return [
        *(md.User(False, uid, 0, "root" if uid == 0 else str(uid)) for uid in uids),
        *(md.User(True, 0, gid, "root" if gid == 0 else str(gid)) for gid in gids),
    ]
