"""Tables that are rows of the capture as they were recorded, chosen and named for a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine import packet_analysis, syscall_text
from stratokit.schema import load
from stratokit.schema.model import Column
from stratokit.schema.tables import Table

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_PACKETS = (
    "frame ts interface direction orig_len cap_len src_ip dst_ip src_port dst_port ip_proto vlan "
    "tcp_flags tcp_seq tcp_ack tcp_window payload_len flow_id stop_layer stop_reason "
    "pid tid comm container_id pod namespace socket_cookie process_start cgroup ifindex link_type "
    "ip_version ip_ttl ip_id icmp_type icmp_code gso_segments comment"
)
_SOCKETS = (
    "ts pid comm src_ip src_port dst_ip dst_port event old_state new_state rtt_ns retransmits socket_cookie "
    "congestion_window bytes_acked bytes_received tid process_start container_id pod namespace cgroup netns "
    "kernel_stack"
)
_SYSCALLS = (
    "ts pid tid comm syscall args ret errno duration_ns fd fd2 fd_kind fd_name path path2 src_ip src_port "
    "dst_ip dst_port unfinished socket_cookie inode device process_start container_id pod namespace cgroup"
)
_DROPS = (
    "ts drop_reason drop_location pid comm src_ip src_port dst_ip dst_port ip_proto tcp_flags interface "
    "orig_len payload_len socket_cookie tid process_start container_id pod namespace cgroup ifindex "
    "ether_type netns kernel_stack"
)
_EVENTS = (
    "ts event pid tid comm path path2 arg0 arg1 arg2 data process_start container_id pod namespace cgroup"
)
_CONTAINERS = "ts container_id container_name runtime image pod namespace pod_uid cgroup name_source"
_INTERFACES = "ts interface ifindex link_type mac addresses mtu netns interface_info"
_PLAINTEXT = (
    "ts pid comm direction src_ip src_port dst_ip dst_port orig_len cap_len data duration_ns tls_session "
    "tls_position tls_began cipher_next_seq socket_cookie tid process_start container_id pod namespace cgroup"
)
_LOSSES = "ts counter amount span_ns"


def _columns(names: str, *own: Column) -> tuple[Column, ...]:
    """Columns of capture.toml by name; `own` are those that only this table has."""
    known = {column.name: column for column in (*load.capture().columns, *own)}
    return tuple(known[name] for name in names.split())


_ARGS = Column("args", "text", "Arguments as names and values, in the manner of strace.")
_PROCESSES = (
    Column("pid", "u32", "Process id."),
    Column("process_start", "time", "When the process started; with pid it names the process."),
    Column("parent_pid", "u32", "Process id of the parent, as last seen."),
    Column("comm", "name", "Name, as last seen, at most 15 bytes."),
    Column("path", "name", "Program, as last executed."),
    Column("cmdline", "text", "Arguments, quoted as a shell would want them."),
    Column("uid", "u32", "Real user id."),
    Column("gid", "u32", "Real group id."),
    Column("first_ts", "time", "When the recording first saw it."),
    Column("exit_ts", "time", "When it ended; null when it was alive at the end of the recording."),
    Column("exit_code", "s32", "Exit code; 128 + signal number when a signal ended the process."),
    Column("execs", "u32", "Programs that it executed during the recording."),
    *_columns("container_id pod namespace cgroup netns"),
)
_LOSS_COLUMNS = (
    *_columns(_LOSSES),
    Column("is_loss", "bool", "True when recorded data is missing because of it."),
    Column("meaning", "text", "What was lost, cut or rejected, and what helps."),
)

# Each by its kind of row; the order is that of `stratokit table --help` and of the docs.
RAW_TABLES = {
    "packet": Table(
        "packets",
        "a packet; a local one is seen twice, out and in",
        _columns(_PACKETS),
        on_request=packet_analysis.COLUMNS,
    ),
    "socket": Table("sockets", "a change of a TCP socket", _columns(_SOCKETS)),
    "drop": Table("drops", "a packet that the kernel dropped", _columns(_DROPS)),
    "syscall": Table("syscalls", "a system call", _columns(_SYSCALLS, _ARGS)),
    "event": Table("events", "an event of a scap file that is no system call", _columns(_EVENTS)),
    "process": Table("processes", "a process", _PROCESSES),
    "container": Table("containers", "a container", _columns(_CONTAINERS)),
    "interface": Table("interfaces", "a network interface", _columns(_INTERFACES)),
    "plaintext": Table(
        "plaintext",
        "what a program sent or received in TLS through OpenSSL, in one call, or one record of it",
        _columns(_PLAINTEXT),
    ),
    "loss": Table("losses", "a counter of lost or cut things over a span of time", _LOSS_COLUMNS),
}


def wide_rows(capture: Capture, kind: str) -> pl.LazyFrame:
    """Rows of a raw table with every column that a filter may ask for, beyond those that the table shows."""
    rows = capture.rows(kind)
    if kind == "syscall":
        return rows.with_columns(syscall_text.arguments().alias("args"))
    if kind == "process":
        return _processes(rows)
    if kind == "loss":
        return _losses(rows)
    return rows


def _processes(rows: pl.LazyFrame) -> pl.LazyFrame:
    """One row a process: the latest of what its events say."""
    latest = ("parent_pid", "comm", "path", "cmdline", "uid", "gid", "container_id", "pod", "namespace")
    ended = pl.col("event") == "exit"
    return (
        rows.sort("ts")
        .group_by("pid", "process_start", maintain_order=True)
        .agg(
            *(pl.col(name).drop_nulls().last() for name in (*latest, "cgroup", "netns")),
            pl.col("ts").first().alias("first_ts"),
            pl.col("ts").filter(ended).last().alias("exit_ts"),
            pl.col("exit_code").filter(ended).last(),
            (pl.col("event") == "exec").sum().cast(pl.UInt32).alias("execs"),
        )
    )


def _losses(rows: pl.LazyFrame) -> pl.LazyFrame:
    counters = load.counters().values()
    known = pl.LazyFrame(
        {
            "counter": [counter.name for counter in counters],
            "is_loss": [counter.loss for counter in counters],
            "meaning": [counter.doc for counter in counters],
        }
    )
    # A newer version may count what this one has no sentence for; it is shown all the same.
    return rows.join(known, on="counter", how="left", maintain_order="left").with_columns(
        pl.col("is_loss").fill_null(value=True), pl.col("meaning").fill_null(pl.col("counter"))
    )
