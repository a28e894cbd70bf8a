"""What is known of a scap file beside its calls and events: processes, containers, lists, losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.engine.scap import boxes, carried, layout, rows, state
from stratokit.engine.scap.follower import Follower
from stratokit.errors import FormatError
from stratokit.formats.scap import metadata, walk
from stratokit.formats.scap.reader import Events, Listed
from stratokit.schema.cgroup_paths import container_of

Tables = Iterator[tuple[str, pa.Table]]
_CONTAINER_JSON = 324


@dataclasses.dataclass(slots=True)
class Survey:
    """What is known of a scap file beside its calls and events, complete after one pass."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    first_ns: int | None = None
    last_ns: int | None = None
    machine: metadata.Machine | None = None
    interfaces: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    processes: list[pa.Table] = dataclasses.field(default_factory=list)
    containers: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    losses: dict[str, int] = dataclasses.field(default_factory=dict)
    damage: Any = None
    blocks: list[carried.Carried] = dataclasses.field(default_factory=list)
    blocks_read: int = 0  # but section headers
    beside_packets: bool = False  # another reader takes those, and the blocks that both pass over
    _carried_bytes: int = 0
    _waiting: list[metadata.Process] = dataclasses.field(default_factory=list)

    def listed(self, item: Listed, follower: Follower) -> None:
        """Take in a list."""
        self.blocks_read += item.name != "section"
        self._carried_bytes += len(item.block)
        if self._carried_bytes <= carried.BYTES_MAX:
            self.blocks.append(carried.Carried(follower.events_before, item.block))
        else:
            self.blocks.clear()
        if item.name == "machine":
            self.machine = item.value
        elif item.name == "interfaces":
            for entry in item.value:
                addresses = self.interfaces.setdefault(entry.name, [])
                addresses += [entry.address] if entry.address not in addresses else []
        elif item.name == "processes":
            self._waiting += [process for process in item.value if process.tid == process.pid]

    def events(self, batch: Events, out: layout.Out, follower: Follower) -> None:
        """Take in a batch of events and what became of it."""
        made = out.rows[: out.used[0]]
        ts = made["ts"][made["kind"] == layout.SYSCALL]  # other events may have no time
        if ts.size:
            first, last = int(ts.min()), int(ts.max())
            self.first_ns = first if self.first_ns is None else min(self.first_ns, first)
            self.last_ns = last if self.last_ns is None else max(self.last_ns, last)
        self._snapshots(follower, int(ts[0]) if ts.size else 0)
        for wrong, name in ((walk.UNKNOWN, "scap_event_unknown"), (walk.LYING, "scap_event_damaged")):
            self.lose(name, int((batch.rows["wrong"] == wrong).sum()))
        self.made(out, follower)

    def made(self, out: layout.Out, follower: Follower) -> None:
        """Count rows and keep those of processes and containers."""
        made = out.rows[: out.used[0]]
        calls = int((made["kind"] == layout.SYSCALL).sum())
        self._count("syscall", calls)
        self._count("event", made.size - calls)
        if out.used[1]:
            self._processes(rows.processes(follower, out.processes[: out.used[1]]))
        described = made[(made["type"] == _CONTAINER_JSON) & (made["path"] >= 0)]
        for row, text in zip(described, rows.Texts(follower.known).many(described["path"]), strict=True):
            self._described(int(row["ts"]), text)

    def end(self, reader: Any, follower: Follower, path: Path) -> None:
        """Take what the reader knows at its end.

        Raises:
            FormatError: it could read nothing at all.
        """
        self._snapshots(follower, self.first_ns or 0)
        self.damage = reader.damage
        self.blocks_read += follower.events_before + reader.bad_lists
        if self.damage is not None and not follower.events_before:
            raise FormatError(
                f"{path}: nothing could be read: {self.damage.reason} (byte {self.damage.offset})"
            )
        if not self.beside_packets:
            self.lose("block_skipped", reader.skipped_blocks)
        self.lose("scap_list_damaged", reader.bad_lists)
        self.lose("scap_fork_unfollowed", int(follower.known.counts[state.UNFOLLOWED]))
        self.lose("scap_entry_forgotten", int(follower.known.counts[state.FORGOTTEN]))

    def lose(self, counter: str, amount: int) -> None:
        """Count what is missing."""
        if amount:
            self.losses[counter] = self.losses.get(counter, 0) + amount

    def _count(self, kind: str, amount: int) -> None:
        if amount:
            self.counts[kind] = self.counts.get(kind, 0) + amount

    def _processes(self, table: pa.Table) -> None:
        self.processes.append(table)
        self._count("process", table.num_rows)

    def _snapshots(self, follower: Follower, ts: int) -> None:
        """Processes of the list were there at the first event."""
        if not self._waiting:
            return
        found = np.zeros(len(self._waiting), layout.PROCESS)
        for row, process in zip(found, self._waiting, strict=True):
            row["ts"], row["start"], row["exit_status"] = ts, -1, -1
            row["tid"], row["pid"], row["ptid"] = process.tid, process.pid, process.ptid & (1 << 62) - 1
            row["uid"], row["gid"] = process.uid, process.gid
            row["comm"], row["path"] = follower.text(process.comm), follower.text(process.exepath)
            row["cmdline"] = follower.text(process.exe + b"\0" + process.args) if process.exe else -1
            row["cgroups"] = follower.text(process.cgroups)
        self._waiting = []
        self._processes(rows.processes(follower, found))

    def _described(self, ts: int, text: str) -> None:
        if (found := boxes.read(text)) is not None:
            self.containers.append({"ts": ts, **found})

    def tables(self) -> Tables:
        """Rows of all kinds but syscall and event."""
        if self.processes:
            yield "process", pa.concat_tables(self.processes, promote_options="default")
        if (found := self._containers()).height:
            yield "container", found.to_arrow()
        last = self.last_ns or 0
        if self.interfaces:
            yield (
                "interface",
                pa.table(
                    {
                        "ts": pa.array([last] * len(self.interfaces), rows.TIME),
                        "interface": list(self.interfaces),
                        "addresses": list(self.interfaces.values()),
                    }
                ),
            )
        if self.totals:
            damage = self.damage
            yield (
                "loss",
                pa.table(
                    {
                        "ts": pa.array([last] * len(self.totals), rows.TIME),
                        "counter": list(self.totals),
                        "amount": pa.array(list(self.totals.values()), pa.uint64()),
                        "span_ns": pa.array([0] * len(self.totals), pa.uint64()),
                        "file_offset": pa.array(
                            [
                                damage.offset if damage and name == damage.counter else None
                                for name in self.totals
                            ],
                            pa.uint64(),
                        ),
                        "reason": pa.array(
                            [
                                damage.reason if damage and name == damage.counter else None
                                for name in self.totals
                            ],
                            pa.string(),
                        ),
                    }
                ),
            )

    @property
    def totals(self) -> dict[str, int]:
        """What is missing, by counter."""
        return self.losses | ({self.damage.counter: 1} if self.damage else {})

    def _containers(self) -> pl.DataFrame:
        """From events that describe one, and from the cgroups of processes."""
        named = (
            *("container_id", "container_name", "image", "runtime", "name_source", "cgroup"),
            *boxes.LABELS.values(),
        )
        schema: dict[str, Any] = {"ts": pl.Int64, **dict.fromkeys(named, pl.String)}
        found = [pl.DataFrame(self.containers, schema=schema)]
        if self.processes:
            lived = pl.DataFrame(pl.from_arrow(pa.concat_tables(self.processes, promote_options="default")))
            seen = lived.select(pl.col("ts").cast(pl.Int64), pl.col("cgroup", "container_id").cast(pl.String))
            seen = seen.drop_nulls("container_id").unique("container_id", keep="first", maintain_order=True)
            runtimes = [container_of(path)[2] for path in seen["cgroup"]]
            seen = seen.with_columns(pl.Series("runtime", runtimes, pl.String), name_source=pl.lit("path"))
            found.append(seen)
        known = pl.concat(found, how="diagonal_relaxed").unique(
            "container_id", keep="first", maintain_order=True
        )
        times = pl.from_epoch("ts", time_unit="ns").dt.replace_time_zone("UTC")
        return known.with_columns(times)

    @property
    def host(self) -> dict[str, Any]:
        """As recordings name these facts."""
        if self.machine is None:
            return {}
        found = {
            "hostname": self.machine.hostname,
            "processors": self.machine.num_cpus,
            "memory_bytes": self.machine.memory_bytes,
        }
        return {key: value for key, value in found.items() if value}
