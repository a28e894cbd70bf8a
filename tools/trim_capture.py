"""Keep of a capture only what one process tree did.

A recording sees the whole host; a sample must not show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stratokit.formats.parquet import CaptureReader, CaptureWriter
from stratokit.schema import load

LOOPBACK_INTERFACE = "lo"
# Where a process stands in the host's hierarchy says something about the host, not about the traffic.
HOST_COLUMNS = ("cgroup", "container_id", "pod", "namespace")


@dataclass(frozen=True)
class Tree:
    """Processes, and when the first of them became itself: until its exec it was still the recorder."""

    pids: set[int]
    begin: pa.Scalar


def process_tree(capture: CaptureReader, root: int) -> Tree:
    """pid `root` and everything that descends from it."""
    columns = ["ts", "event", "pid", "parent_pid"]
    table = pa.concat_tables(capture.iter_tables("process", columns)).unify_dictionaries()
    parents = list(zip(table["pid"].to_pylist(), table["parent_pid"].to_pylist(), strict=True))
    pids = {root}
    while new := {pid for pid, parent in parents if parent in pids} - pids:
        pids |= new
    execs = pc.and_(pc.equal(table["pid"], root), pc.equal(table["event"].cast(pa.string()), "exec"))
    return Tree(pids, pc.min(table.filter(execs)["ts"]))


def keep(kind: str, table: pa.Table, tree: Tree, ports: set[int]) -> pa.Table:
    def among(column: str, values: set[int]) -> pa.Array:
        return pc.is_in(table[column], pa.array(sorted(values), table[column].type))

    if kind == "container":
        return table.slice(0, 0)
    if kind in ("packet", "socket"):
        # By port: packets of a closing or not yet accepted connection have no process.
        return table.filter(pc.or_(among("src_port", ports), among("dst_port", ports)))
    if kind == "interface":
        return table.filter(pc.equal(pc.cast(table["interface"], pa.string()), LOOPBACK_INTERFACE))
    if "pid" in table.schema.names:
        table = table.filter(among("pid", tree.pids))
        return table.filter(pc.greater_equal(table["ts"], tree.begin))
    return table


def without_host(table: pa.Table) -> pa.Table:
    for name in HOST_COLUMNS:
        if name in table.schema.names:
            field = table.schema.field(name)
            nothing = pa.nulls(table.num_rows, field.type)
            table = table.set_column(table.schema.get_field_index(name), field, nothing)
    return table


def texts(table: pa.Table) -> Iterator[str]:
    for column in table.columns:
        values = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            yield from filter(None, pc.unique(values).to_pylist())
        elif pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            yield from (value.decode("latin-1") for value in pc.unique(values).to_pylist() if value)


def refuse(text: str, forbidden: list[str], where: str) -> None:
    for word in forbidden:
        if word in text:
            raise ValueError(f"{where} shows {word!r}: {text[:200]!r}")


def trim(source: Path, target: Path, root: int, ports: set[int], forbidden: list[str]) -> None:
    """Write to `target` what process `root` and its descendants did, and the traffic of `ports`.

    Raises:
        ValueError: the metadata or a kept row holds one of the `forbidden` texts.
    """
    with CaptureReader(source) as capture, CaptureWriter(target, capture.metadata) as trimmed:
        tree = process_tree(capture, root)
        for key, text in capture.metadata.items():
            refuse(text, forbidden, f"the metadata {key}")
        for kind in load.capture().kinds:
            for table in capture.iter_tables(kind):
                kept = without_host(keep(kind, table, tree, ports))
                for text in texts(kept):
                    refuse(text, forbidden, f"a {kind} row")
                trimmed.write(kind, kept)
