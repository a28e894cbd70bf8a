"""Programs whose activity is known exactly, recorded by eBPF: our rows equal what they did."""

import polars as pl
import pytest
from recording import recording
from workloads import dns, echo, files, nginx, shell, web

import stratokit as sk

pytestmark = pytest.mark.kernel


def test_each_http_request_is_a_row(tmp_path):
    with nginx.nginx() as site, recording(tmp_path / "a.parquet") as made:
        sent = web.browse(site) + web.browse_kept_alive(site)
    rows = sk.open(made.path).table("http").filter(pl.col("server_port") == site.port).collect()
    assert rows.sort("ts_request").select("method", "path", "status").rows() == [
        (r.method, r.path, r.status) for r in sent
    ]
    assert rows["latency_ns"].min() > 0
    assert rows["pid"].to_list() == [r.client_pid for r in sent]
    assert set(rows["server_pid"]) <= set(site.worker_pids)
    assert set(rows["server_comm"]) == {"nginx"}
    assert not made.losses().keys() & {"packet_no_space", "syscall_no_space", "packet_no_scratch"}


def test_each_dns_query_is_a_row(tmp_path):
    with dns.dnsmasq() as resolver, dns.failing_server() as broken, recording(tmp_path / "a.parquet") as made:
        asked = dns.look_up(resolver) + dns.look_up_broken(broken)
    rows = sk.open(made.path).table("dns").filter(pl.col("server_port").is_in([resolver.port, broken.port]))
    rows = rows.collect().sort("ts_query")
    asked = [q for q in asked if q.transport == "udp"]
    assert rows.select("qname", "qtype", "rcode", "attempts").rows() == [
        (q.qname, q.qtype, q.rcode, q.attempts) for q in asked
    ]


def test_each_openat_is_a_row_with_its_path(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    with recording(tmp_path / "a.parquet") as made:
        did = files.work_on_files(folder)
    calls = made.rows("syscall").filter(pl.col("pid") == did.pid)
    mine = calls.filter(pl.col("path").str.starts_with(str(folder)) & (pl.col("syscall") != "execve"))
    opened = mine.filter(pl.col("syscall") == "openat").sort("ts")
    assert opened.filter(pl.col("ret") >= 0)["path"].to_list() == did.opened
    assert opened.filter(pl.col("errno") == "ENOENT")["path"].to_list() == did.missing
    # File structures are reused all the time: each name must still be the one that was opened last.
    assert opened.filter(pl.col("ret") >= 0)["fd_name"].to_list() == did.opened
    closed = calls.filter(syscall="close").sort("ts")
    assert closed.filter(pl.col("fd_name").is_in(did.opened))["fd_name"].to_list() == did.opened
    renamed = mine.filter(pl.col("syscall").str.starts_with("rename")).sort("ts")
    assert renamed.select("path", "path2").rows() == did.renamed
    assert (
        mine.filter(pl.col("syscall").str.starts_with("unlink")).sort("ts")["path"].to_list() == did.unlinked
    )
    written = calls.filter(pl.col("syscall") == "write", pl.col("fd_name").str.starts_with(str(folder)))
    assert written["ret"].to_list() == [files.PAYLOAD_BYTES] * did.writes
    assert written["data"].bin.size().to_list() == [80] * did.writes
    read = calls.filter(pl.col("syscall") == "read", pl.col("fd_name").str.starts_with(str(folder)))
    assert read.height == did.reads
    assert set(calls.filter(pl.col("syscall") == "openat")["comm"]) == {did.comm}
    assert calls["duration_ns"].drop_nulls().min() > 0


CLIENT_STATES = ["SYN_SENT", "ESTABLISHED"]


@pytest.mark.parametrize("prefork", [False, True])
def test_states_and_processes_of_a_connection(tmp_path, prefork):
    """Both ends: states in order, and the right pid and comm on every packet, handshake and end included."""
    with echo.echo_server(prefork=prefork) as server, recording(tmp_path / "a.parquet") as made:
        talk = echo.converse(server)
    sockets = made.rows("socket").filter(pl.col("event") == "state").sort("ts")
    for local, remote, first in (
        (talk.client_port, talk.server_port, ["SYN_SENT", "ESTABLISHED"]),
        (talk.server_port, talk.client_port, ["ESTABLISHED"]),
    ):
        own = sockets.filter((pl.col("src_port") == local) & (pl.col("dst_port") == remote))
        states = own["new_state"].to_list()
        assert states[: len(first)] == first
        assert states[-1] == "CLOSE"
        # Each state begins where the one before ended.
        assert own["old_state"].to_list()[1:] == states[:-1]
        assert own["socket_cookie"].n_unique() == 1
    ports = pl.col("src_port").is_in([talk.client_port]) & (pl.col("dst_port") == talk.server_port)
    back = pl.col("dst_port").is_in([talk.client_port]) & (pl.col("src_port") == talk.server_port)
    packets = made.rows("packet").filter(ports | back)
    client_side = (pl.col("direction") == "out") == (pl.col("src_port") == talk.client_port)
    at_client, at_server = packets.filter(client_side), packets.filter(~client_side)
    assert at_client.height == at_server.height == packets["frame"].n_unique()
    assert set(at_client.select("pid", "comm").rows()) == {(talk.client_pid, talk.client_comm)}
    assert set(at_server.select("pid", "comm").rows()) == {(talk.server_pid, server.comm)}
    sent = at_client.filter(pl.col("direction") == "out")["payload_len"].sum()
    assert sent == talk.bytes_each_way


def test_each_process_is_born_runs_and_ends(tmp_path):
    with recording(tmp_path / "a.parquet") as made:
        did = shell.fork_processes()
    rows = made.rows("process")
    ended = rows.filter((pl.col("event") == "exit") & (pl.col("parent_pid") == did.pid))
    assert sorted(ended.select("pid", "exit_code").rows()) == sorted(
        (c.pid, c.exit_code) for c in did.children
    )
    executed = rows.filter((pl.col("event") == "exec") & pl.col("pid").is_in([c.pid for c in did.children]))
    assert sorted(executed.select("pid", "path").rows()) == sorted((c.pid, c.exe) for c in did.children)
    born = rows.filter((pl.col("event") == "fork") & (pl.col("parent_pid") == did.pid))
    assert set(born["pid"]) >= {c.pid for c in did.children}
    for start in (
        rows.filter(pl.col("pid").is_in([c.pid for c in did.children]))
        .group_by("pid")
        .agg(pl.col("process_start").drop_nulls().n_unique())["process_start"]
    ):
        assert start == 1
