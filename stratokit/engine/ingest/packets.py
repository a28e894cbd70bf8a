"""Rows of kind `packet` from a window of kernel records: decoded, numbered, with flow and owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.packets import dissect
from stratokit.engine.ingest.interfaces import Interfaces
from stratokit.engine.ingest.owners import with_owner
from stratokit.engine.ingest.payloads import Payloads
from stratokit.engine.ingest.processes import with_process
from stratokit.engine.ingest.sightings import Sightings, packet_hashes
from stratokit.streams.flows import FlowTable
from stratokit.streams.packet_flows import flow_columns

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey
    from stratokit.formats.events import Batch

LINKTYPE_RAW = 101
OUT = 2


class Packets:
    """Turns windows of packet records into rows; numbering of frames and flows goes on from window to
    window.
    """

    def __init__(self, found: Survey, context: Context) -> None:
        self._clock = found.clock
        self._context = context
        self._flows = FlowTable()
        self._sightings = Sightings()
        self._interfaces = Interfaces(found)
        self.payloads = Payloads()

    def rows(self, batch: Batch) -> pa.Table:
        """Rows of one span, sorted by time."""
        ts = self._clock.utc_ns(batch.fixed["ts_ns"])
        batch = batch.ordered(np.argsort(ts, kind="stable"))
        fixed, ts = batch.fixed, np.sort(ts)
        data, offsets, lengths = self.payloads.whole(batch)
        cap_lens = lengths.astype(np.uint32)
        found = dissect(
            data, offsets[:-1], cap_lens, fixed["orig_len"], np.full(ts.size, LINKTYPE_RAW, np.uint16)
        )
        outgoing = fixed["direction"] == OUT
        frames = self._sightings.number(packet_hashes(data, offsets[:-1], lengths), ts, outgoing)
        return self._table(
            found,
            (data, offsets),
            {
                "ts": ts,
                "outgoing": outgoing,
                "frame": frames,
                "socket_cookie": pl.Series(fixed["socket_cookie"]).replace(0, None),
                "interface": None,
                "ifindex": fixed["ifindex"],
                "link_type": np.full(ts.size, LINKTYPE_RAW, np.uint16),
                "orig_len": fixed["orig_len"],
                "cap_len": cap_lens,
                "gso_segments": fixed["gso_segments"],
            },
        )

    def _table(self, found: dict[str, Any], contents: tuple[Any, Any], given: dict[str, Any]) -> pa.Table:
        """Rows of what was dissected; `contents` is the frames' bytes with offsets, `given` what else is
        known of them. Where it has no `interface`, the socket's namespace tells it.
        """
        ts, outgoing = given["ts"], given["outgoing"]
        table = packet_columns(found)
        flows = self._followed(flow_columns(self._flows, found, ts), table, given)
        who = self._context.locate(
            pl.DataFrame(
                {
                    "ts": ts,
                    "socket_cookie": given["socket_cookie"],
                    "out": outgoing,
                    "src_ip": pl.from_arrow(table["src_ip"]),
                    "dst_ip": pl.from_arrow(table["dst_ip"]),
                    "src_port": pl.from_arrow(table["src_port"]),
                    "dst_port": pl.from_arrow(table["dst_port"]),
                    "ip_proto": pl.from_arrow(table["ip_proto"]),
                }
            ).with_columns(pl.col("src_ip", "dst_ip").cast(pl.String))
        )
        names, networks = given["interface"], given.get("netns")
        if names is None:
            names, networks = self._interfaces.places(who["socket_cookie"], given["ifindex"])
        segments = pl.Series(given["gso_segments"])
        data, offsets = contents
        own: dict[str, Any] = {
            "ts": pa.array(ts, pa.timestamp("ns", "UTC")),
            "frame": given["frame"].to_arrow(),
            "interface": names.to_arrow(),
            "ifindex": pa.array(given["ifindex"]),
            "netns": pl.Series(networks, dtype=pl.UInt64).replace(0, None).to_arrow(),
            "direction": pl.select(pl.when(pl.Series(outgoing)).then(pl.lit("out")).otherwise(pl.lit("in")))
            .to_series()
            .to_arrow(),
            "link_type": pa.array(given["link_type"]),
            "orig_len": pa.array(given["orig_len"]),
            "cap_len": pa.array(given["cap_len"]),
            **flows,
            "gso_segments": pl.select(pl.when(segments > 1).then(segments)).to_series().to_arrow(),
            "data": pa.Array.from_buffers(
                pa.large_binary(), len(ts), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
            ),
        }
        for name in self._context.COLUMNS:
            own[name] = who[name].to_arrow()
        for name, column in table.items():
            own.setdefault(name, column)
        return pa.table(own)

    def _followed(
        self, flows: dict[str, pa.Array], table: dict[str, pa.Array], given: dict[str, Any]
    ) -> dict[str, pa.Array]:
        """Columns of conversations, null where a packet is not followed: at sockets all are."""
        del table, given
        return flows


class Context:
    """What every row gets from its socket or pid: owner, process, container."""

    COLUMNS = (
        "socket_cookie",
        "pid",
        "tid",
        "comm",
        "process_start",
        "cgroup",
        "container_id",
        "pod",
        "namespace",
    )

    def __init__(
        self,
        owners: pl.DataFrame,
        spans: pl.DataFrame,
        containers: pl.DataFrame,
        children: pl.DataFrame,
    ) -> None:
        """`children`: (socket_cookie, ts, and addresses) of connections that a listener accepted; see
        `connections`.
        """
        self._owners = owners
        self._spans = spans
        self._containers = containers
        self._children = children

    def locate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """COLUMNS for packets (ts, socket_cookie, out, addresses, ports)."""
        return self.of_socket(self._own_cookie(rows))

    def of_socket(self, rows: pl.DataFrame) -> pl.DataFrame:
        """COLUMNS for what happened on sockets (ts, socket_cookie)."""
        return self.process(with_owner(rows.select("ts", "socket_cookie"), self._owners), "owner_ts")

    def process(self, rows: pl.DataFrame, at: str = "ts") -> pl.DataFrame:
        """Add process_start, cgroup and container columns to rows with pid, which stood for the process at
        the time in column `at`.
        """
        rows = with_process(rows, self._spans, at).join(
            self._containers, on="cgroup", how="left", maintain_order="left"
        )
        return rows.with_columns(pl.from_epoch("process_start", time_unit="ns").dt.replace_time_zone("UTC"))

    def _own_cookie(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Packets of a connection that is being set up carry the listener's cookie: give them the
        connection's own.
        """
        if self._children.is_empty():
            return rows
        local = pl.when("out")
        keyed = rows.with_row_index("row").with_columns(
            local.then("src_ip").otherwise("dst_ip").alias("local_ip"),
            local.then("dst_ip").otherwise("src_ip").alias("remote_ip"),
            local.then("src_port").otherwise("dst_port").alias("local_port"),
            local.then("dst_port").otherwise("src_port").alias("remote_port"),
        )
        keys = ["local_ip", "remote_ip", "local_port", "remote_port"]
        setup = keyed.filter(pl.col("ip_proto") == 6).join(
            self._children.select("listener").unique(),
            left_on="socket_cookie",
            right_on="listener",
            how="semi",
        )
        if setup.is_empty():
            return rows
        own = (
            setup.select("row", "ts", *keys)
            .sort("ts")
            .join_asof(
                self._children.drop_nulls("child").select("ts", "child", *keys).sort("ts"),
                on="ts",
                by=keys,
                strategy="forward",
                check_sortedness=False,
            )
        )
        return (
            keyed.join(own.select("row", "child"), on="row", how="left", maintain_order="left")
            .with_columns(pl.coalesce("child", "socket_cookie").alias("socket_cookie"))
            .drop("row", "child", *keys)
        )


def connections(sockets: pl.DataFrame, listeners: pl.DataFrame) -> pl.DataFrame:
    """(listener, ts, child, addresses): cookies of listeners, and of the connections that came to be
    established.

    A row has either a listener's cookie or a connection's.
    """
    born = sockets.filter(pl.col("old_state") == "SYN_RECV", pl.col("new_state") == "ESTABLISHED").select(
        pl.lit(None, pl.UInt64).alias("listener"),
        "ts",
        pl.col("socket_cookie").alias("child"),
        pl.col("src_ip").alias("local_ip"),
        pl.col("dst_ip").alias("remote_ip"),
        pl.col("src_port").alias("local_port"),
        pl.col("dst_port").alias("remote_port"),
    )
    return pl.concat([born, listeners.select(pl.col("socket_cookie").alias("listener"))], how="diagonal")
