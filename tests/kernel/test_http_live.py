"""Programs that speak HTTP/2, gRPC and WebSocket, recorded by eBPF: our rows equal what they did."""

from __future__ import annotations

import collections

import polars as pl
import pytest
from recording import recording
from workloads import chat, nginx, rpc, upgrade, web
from workloads.nginx import SITE

import stratokit as sk

pytestmark = pytest.mark.kernel


def test_http2_with_prior_knowledge(tmp_path):
    with nginx.nginx(http2=True) as site, recording(tmp_path / "a.parquet") as made:
        # nginx and this curl do not get along over a connection that is used again.
        sent = [r for path in list(SITE) * 3 for r in web.curl([site.url(path)], "--http2-prior-knowledge")]
    capture = sk.open(made.path)
    rows = capture.table("http").filter(pl.col("server_port") == site.port).collect().sort("ts_request")
    columns = ("version", "method", "path", "status", "response_body_bytes", "client_port", "pid")
    assert rows.select(columns).rows() == [
        ("HTTP/2", r.method, r.path, r.status, r.body_bytes, r.client_port, r.client_pid) for r in sent
    ]
    assert rows["stream_id"].to_list() == [1] * len(sent)
    assert set(rows["server_pid"]) <= set(site.worker_pids)
    assert rows["latency_ns"].min() > 0
    connections = capture.table("http2").filter(pl.col("server_port") == site.port).collect()
    assert connections.select("began", "streams", "unknown_fields").rows() == [(True, 1, 0)] * len(sent)


def test_http2_by_upgrade(tmp_path):
    with upgrade.upgrading_server() as site, recording(tmp_path / "a.parquet") as made:
        sent = web.curl([site.url(path) for path in upgrade.STATUSES] * 2, "--http2")
    rows = sk.open(made.path).table("http").filter(pl.col("server_port") == site.port).collect()
    rows = rows.sort("ts_request")
    assert rows.select("path", "status", "response_body_bytes").rows() == [
        (r.path, upgrade.STATUSES[r.path], len(r.path) * 100) for r in sent
    ]
    assert rows["stream_id"].to_list() == list(range(1, 2 * len(sent), 2))
    assert rows["version"].to_list() == ["HTTP/1.1"] + ["HTTP/2"] * (len(sent) - 1)
    assert set(rows["server_pid"]) == {site.pid}


def test_grpc_calls(tmp_path):
    with rpc.grpc_server() as server, recording(tmp_path / "a.parquet") as made:
        pid, calls = rpc.call_it(server)
    assert len(calls) == rpc.CALLS
    rows = sk.open(made.path).table("grpc").filter(pl.col("server_port") == server.port).collect()
    rows = rows.sort("stream_id")
    assert rows.select("service", "method").rows() == [(c.service, c.method) for c in calls]
    for row, call in zip(rows.to_dicts(), calls, strict=True):
        sent = (row["request_messages"], row["response_messages"] or 0)  # null without an answer
        assert sent == (call.sent, call.received), call
        if call.method == "Slow":  # both ends watch the deadline; whose clock is first ends the call
            assert call.status == "DEADLINE_EXCEEDED"
            assert row["status_name"] in (None, "DEADLINE_EXCEEDED", "CANCELLED")
            assert (row["reset"], row["reset_by"]) in (("CANCEL", "client"), ("NO_ERROR", "server"))
            assert 100_000_000 < row["deadline_ns"] <= 210_000_000
        else:
            assert (row["status_name"], row["message"] or "") == (call.status, call.message)
    assert set(rows["pid"]) == {pid}
    assert set(rows["server_pid"]) == {server.pid}


def test_websocket_messages(tmp_path):
    with chat.room() as room, recording(tmp_path / "a.parquet") as made:
        pid, said = chat.talk(room)
    capture = sk.open(made.path)
    rows = capture.table("websocket").filter(pl.col("server_port") == room.port).collect()
    columns = ("sender", "opcode", "payload_bytes", "close_code", "close_reason")
    assert collections.Counter(rows.select(columns).rows()) == collections.Counter(
        tuple(getattr(message, column) for column in columns) for message in said
    )
    # What the kernel sends on when an acknowledgement comes is in nobody's name.
    assert set(rows.filter(pl.col("sender") == "client")["pid"].drop_nulls()) == {pid}
    assert set(rows.filter(pl.col("sender") == "server")["server_pid"].drop_nulls()) == {room.pid}
    # Packets over loopback may be longer than what is recorded of one.
    assert not rows.filter(pl.col("payload_bytes") < 60_000)["cut"].any()
    (row,) = capture.table("http").filter(pl.col("server_port") == room.port).collect().to_dicts()
    assert (row["path"], row["status"]) == ("/chat", 101)
