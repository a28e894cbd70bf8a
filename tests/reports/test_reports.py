"""Every section from captures whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import synthetic
from polars.testing import assert_frame_equal
from synthetic import MS, T0, Network, Side, syscall

from stratokit.engine.capture import Capture
from stratokit.engine.frames import polars_schema
from stratokit.errors import UsageError
from stratokit.reports.base import Options, reports, spread
from stratokit.reports.grouped import Groups
from stratokit.reports.run import run


def section(capture: Capture, name: str) -> list[dict[str, object]]:
    frame = run(capture, [name]).sections[0].frame
    assert frame is not None
    return frame.to_dicts()


@pytest.fixture
def shop(tmp_path) -> Capture:
    return Capture.open(synthetic.small_shop(tmp_path / "shop.parquet"))


def capture_of(tmp_path, **kinds) -> Capture:
    return Capture.open(synthetic.write(tmp_path / "x.parquet", **kinds))


def test_the_order_of_sections_is_stable():
    names = ["findings", "protocols", "services", "conversations", "tcp", "drops", "dns", "http", "tls"]
    names += ["latency", "timeline", "slowest", "syscalls", "files", "socket_io", "processes"]
    assert [name for name, report in reports().items() if not report.extra] == names
    assert [name for name, report in reports().items() if report.extra] == [
        *("handshakes", "dns_errors", "heat", "endpoints", "error_shares")
    ]
    assert len({report.place for report in reports().values()}) == len(reports())


def test_every_section_has_the_columns_and_types_it_declares(shop):
    for part in run(shop).sections:
        assert part.frame is not None, part.note
        assert part.frame.schema == polars_schema(part.report.columns), part.report.name
        assert part.frame.height > 0 or part.report.name in {"tls", "findings", "socket_io", "drops"}, (
            part.report.name
        )  # the shop has none


def test_every_section_of_an_empty_recording_is_empty(tmp_path):
    for part in run(capture_of(tmp_path)).sections:
        assert part.frame is not None
        assert part.frame.is_empty(), part.report.name
        assert part.frame.schema == polars_schema(part.report.columns)


def test_drops_are_counted_by_reason_process_and_ends(tmp_path):
    row = {"drop_reason": "SOCKET_RCVBUFF", "ip_proto": 17, "dst_port": 53, "pid": 7, "comm": "named"}
    row |= {"src_ip": "10.0.0.1", "dst_ip": "10.0.0.2"}
    rows = [row | {"ts": T0 + i, "src_port": 5000 + i} for i in range(3)]
    rows += [row | {"ts": T0 + 9, "drop_reason": "NO_SOCKET", "pid": None, "comm": None}]
    # Answers on their way back, to clients that are gone.
    back = {"ip_proto": 6, "src_ip": "10.0.0.2", "src_port": 80, "dst_ip": "10.0.0.1", "comm": "curl"}
    back["drop_reason"] = "QUEUE_PURGE"
    rows += [back | {"ts": T0 + 20 + i, "dst_port": 40000 + i, "pid": 100 + i} for i in range(2)]
    first, second, third = section(capture_of(tmp_path, drop=rows), "drops")
    assert (first["packets"], first["proto"], first["comm"], first["pid"]) == (3, "udp", "named", 7)
    assert [first[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port")] == [
        "10.0.0.1",
        None,
        "10.0.0.2",
        53,
    ]
    assert (second["packets"], second["comm"], second["pid"]) == (2, "curl", None)
    assert (second["src_port"], second["dst_port"]) == (80, None)
    assert (third["packets"], third["drop_reason"], third["pid"]) == (1, "NO_SOCKET", None)


def test_what_a_file_of_packets_alone_cannot_tell(tmp_path):
    rows = Capture.open(synthetic.small_shop(tmp_path / "shop.parquet")).rows("packet").collect()
    path = synthetic.write(tmp_path / "packets.parquet", {}, packet=rows.drop("kind").to_dicts())
    result = run(Capture.open(path))
    notes = {part.report.name: part.note for part in result.sections}
    assert notes["syscalls"] == "not recorded: this capture has no syscalls"
    assert notes["processes"] == "not recorded: this capture has no processes"
    assert notes["http"] == ""
    assert not result.counts_losses


def test_protocols_count_packets_bytes_and_conversations(shop):
    rows = {row["protocol"]: row for row in section(shop, "protocols")}
    assert rows["ip"] == {"protocol": "ip", "packets": 14, "bytes": 918, "flows": 3}
    assert (rows["ip/tcp"]["packets"], rows["ip/tcp"]["flows"]) == (10, 1)
    assert (rows["ip/tcp/http"]["packets"], rows["ip/udp/dns"]["packets"]) == (10, 4)
    assert list(rows) == sorted(rows)


def test_a_local_packet_seen_twice_counts_once(tmp_path):
    net = Network()
    net.udp(Side("127.0.0.1", 5000, 10, "a"), Side("127.0.0.1", 6000), T0, b"hi", MS, None)
    net.rows.append(net.rows[0] | {"direction": "in", "pid": 20, "comm": "b", "ts": T0 + 1000})
    rows = section(capture_of(tmp_path, packet=net.rows), "protocols")
    assert [(row["protocol"], row["packets"], row["bytes"]) for row in rows] == [
        ("ip", 1, 30),
        ("ip/udp", 1, 30),
    ]


def test_packets_of_no_known_protocol_are_counted_too(tmp_path):
    row = {"ts": T0, "frame": 1, "orig_len": 60, "cap_len": 60, "link_type": 1, "data": bytes(60)}
    odd = row | {"frame": 2, "ip_version": 4, "ip_proto": 250, "src_ip": "1.1.1.1", "dst_ip": "2.2.2.2"}
    rows = section(capture_of(tmp_path, packet=[row, odd]), "protocols")
    assert [(r["protocol"], r["packets"]) for r in rows] == [("ip", 1), ("ip/ip.proto 250", 1), ("other", 1)]


def test_conversations_have_both_ends_and_the_handshake(shop):
    first = section(shop, "conversations")[0]
    assert (first["proto"], first["client_ip"], first["client_port"]) == ("tcp", "10.0.0.1", 40001)
    assert (first["server_ip"], first["server_port"], first["comm"], first["pid"]) == (
        "10.0.0.2",
        80,
        "curl",
        10,
    )
    assert first["handshake_rtt_ns"] == 2 * MS
    assert (first["bytes_c2s"], first["bytes_s2c"], first["packets_c2s"]) == (365, 305, 6)


def test_tcp_tells_connections_that_failed(tmp_path):
    net = Network()
    net.tcp(Side("10.0.0.1", 40001, 1, "a"), Side("10.0.0.2", 80), T0, [])
    refused, server = Side("10.0.0.1", 40002, 1, "a"), Side("10.0.0.2", 80)
    flow = net._flow()
    net._tcp(flow, refused, server, T0, synthetic.SYN)
    net.rows.append(net.rows[-1] | {"frame": 99})
    net._tcp(flow, server, refused, T0 + MS, synthetic.RST | synthetic.ACK)
    (row,) = section(capture_of(tmp_path, packet=net.rows), "tcp")
    assert (row["connections"], row["failed"], row["resets"], row["max_ns"]) == (2, 1, 1, 2 * MS)
    assert (row["retransmissions"], row["server_retransmissions"], row["zero_window_ns"]) == (1, 0, 0)


def test_dns_counts_errors_and_answers_that_never_came(tmp_path):
    net = Network()
    server = Side("10.0.0.53", 53)
    for number, (name, address, wait) in enumerate(
        [
            ("a.example", "1.2.3.4", 2),
            ("a.example", "1.2.3.4", 8),
            ("no.example", None, 5),
            ("a.example", "", 0),
        ]
    ):
        answer = None if address == "" else synthetic.dns_answer(number, name, address)
        client = Side("10.0.0.1", 50_000 + number, 1, "a")
        net.udp(client, server, T0 + number * 100 * MS, synthetic.dns_query(number, name), wait * MS, answer)
    rows = {row["qname"]: row for row in section(capture_of(tmp_path, packet=net.rows), "dns")}
    good, bad = rows["a.example"], rows["no.example"]
    assert (good["count"], good["errors"], good["unanswered"]) == (3, 1, 1)
    assert (good["max_ns"], good["p99_ns"]) == (8 * MS, 8 * MS)
    assert (bad["count"], bad["errors"], bad["unanswered"], bad["rcodes"]) == (1, 1, 0, "NXDOMAIN")


def test_http_by_endpoint_without_the_query(tmp_path):
    net = Network()
    exchanges = [
        (
            MS,
            synthetic.http_request(f"/item?id={n}"),
            n * 10 * MS,
            synthetic.http_response(404 if n == 3 else 200),
        )
        for n in range(1, 6)
    ]
    net.tcp(Side("10.0.0.1", 40001, 1, "a"), Side("10.0.0.2", 80), T0, exchanges)
    (row,) = section(capture_of(tmp_path, packet=net.rows), "http")
    assert (row["method"], row["host"], row["path"]) == ("GET", "shop.example", "/item")
    assert (row["count"], row["errors"], row["unanswered"]) == (5, 1, 0)
    assert (row["p50_ns"], row["p90_ns"], row["max_ns"]) == (30 * MS, 50 * MS, 50 * MS)
    slowest = next(r for r in net.rows if b"id=5" in r["data"])
    assert row["slowest_frame"] == slowest["frame"]


def test_latency_names_each_layer_that_occurred(shop):
    found = section(shop, "latency")
    rows = {row["waiting_for"]: row for row in found if row["part"] == "all of it"}
    assert (rows["DNS answer"]["count"], rows["DNS answer"]["errors"]) == (2, 1)
    assert (rows["TCP handshake"]["count"], rows["TCP handshake"]["p50_ns"]) == (1, 2 * MS)
    assert (rows["HTTP response"]["errors"], rows["HTTP response"]["max_ns"]) == (1, 250 * MS)
    assert "TLS handshake" not in rows


def test_latency_shows_parts_by_the_time_that_they_took(shop):
    found = [row for row in section(shop, "latency") if row["part"] != "all of it"]
    assert (found[0]["waiting_for"], found[0]["part"]) == ("HTTP response", "unknown")  # of the other end
    assert found[0]["share"] == pytest.approx(255 / (250 + 27))
    connecting = next(row for row in found if row["part"] == "connecting")
    assert (connecting["count"], connecting["max_ns"]) == (1, MS)


def test_services_are_pairs_of_who_calls_and_who_is_called(shop):
    web, names = section(shop, "services")
    assert (web["client"], web["server"], web["server_port"]) == ("curl", "10.0.0.2", 80)
    assert (web["connections"], web["requests"], web["errors"]) == (1, 2, 1)
    assert (web["p50_ns"], web["max_ns"]) == (27 * MS, 250 * MS)
    assert (names["server"], names["connections"], names["requests"], names["errors"]) == (
        "10.0.0.53",
        2,
        2,
        1,
    )


def test_the_slowest_requests_come_first_and_say_what_took_longest(shop):
    rows = section(shop, "slowest")
    assert [row["kind"] for row in rows] == ["http", "http", "dns", "dns", "tcp"]
    assert (rows[0]["what"], rows[0]["total_ns"]) == ("GET shop.example/cart?id=7", 250 * MS)
    assert rows[0]["mostly"] == "unknown 100 %"


def test_system_calls_put_work_before_waiting(tmp_path):
    calls = [
        syscall(T0, "read", duration_ns=5 * MS),
        syscall(T0 + MS, "read", pid=11, duration_ns=7 * MS, ret=-11, errno="EAGAIN"),
        syscall(T0 + 2 * MS, "futex", duration_ns=1000 * MS),
        syscall(T0 + 3 * MS, "openat", duration_ns=None),
    ]
    rows = section(capture_of(tmp_path, syscall=calls), "syscalls")
    assert [row["syscall"] for row in rows] == ["read", "openat", "futex"]
    read = rows[0]
    assert (read["processes"], read["count"], read["errors"], read["errnos"]) == (2, 2, 1, "EAGAIN")
    assert (read["total_ns"], read["max_ns"], read["waiting"]) == (12 * MS, 7 * MS, False)
    assert (rows[1]["max_ns"], rows[2]["waiting"]) == (None, True)


def test_files_add_up_by_program_and_path(tmp_path):
    log = {"fd_kind": "file", "fd_name": "/var/log/a"}
    calls = [
        syscall(T0, "write", ret=100, duration_ns=5 * MS, **log),
        syscall(T0 + MS, "write", pid=11, ret=20, duration_ns=9 * MS, **log),
        syscall(T0 + 2 * MS, "pread64", ret=-5, errno="EIO", duration_ns=MS, **log),
        syscall(T0 + 3 * MS, "fsync", unfinished=True, **log),
        syscall(T0 + 4 * MS, "newfstatat", path="/etc/x", ret=-2, errno="ENOENT"),
        syscall(T0 + 5 * MS, "sendto", ret=7, fd_kind="socket", fd_name="10.0.0.1:5->10.0.0.2:80"),
    ]
    rows = section(capture_of(tmp_path, syscall=calls), "files")
    assert [(row["comm"], row["file"]) for row in rows] == [("curl", "/var/log/a"), ("curl", "/etc/x")]
    found = rows[0]
    assert (found["calls"], found["errors"], found["errnos"]) == (4, 1, "EIO")
    assert (found["read_bytes"], found["written_bytes"], found["total_ns"]) == (0, 120, 15 * MS)
    assert (found["p50_ns"], found["max_ns"], found["slowest"]) == (5 * MS, 9 * MS, "write")
    assert (rows[1]["errnos"], rows[1]["slowest"]) == ("ENOENT", "newfstatat")


def test_sockets_add_up_by_program_and_peer(tmp_path):
    def moved(name, ret, fd_name, **more):
        return syscall(T0, name, ret=ret, fd_kind="socket", fd_name=fd_name, **more)

    calls = [
        moved("sendto", 10, "10.0.0.1:40001->10.0.0.2:80"),
        moved("recvfrom", 70, "10.0.0.1:40002->10.0.0.2:80", duration_ns=3 * MS),
        moved("sendmsg", 5, "[fd00::1]:40003->[fd00::2]:443"),
        moved("connect", -111, None, errno="ECONNREFUSED", dst_ip="10.0.0.3", dst_port=81),
        moved("accept4", 4, "socket:[7]"),
    ]
    rows = section(capture_of(tmp_path, syscall=calls), "socket_io")
    known = {(r["peer"], r["port"]): (r["calls"], r["read_bytes"], r["written_bytes"]) for r in rows}
    assert known == {
        ("10.0.0.2", 80): (2, 70, 10),
        ("fd00::2", 443): (1, 0, 5),
        ("10.0.0.3", 81): (1, 0, 0),
        ("socket:[7]", None): (1, 0, 0),
    }
    assert (rows[0]["slowest"], rows[0]["total_ns"]) == ("recvfrom", 4 * MS)


def test_groups_of_many_rows_are_as_polars_counts_them():
    numbers = np.random.default_rng(7)
    rows = pl.DataFrame(
        {
            "name": pl.Series(numbers.choice(["a", "b", None], 5000).tolist(), dtype=pl.Categorical),
            "far": numbers.integers(0, 3, 5000) << 40,
            "ns": pl.Series(numbers.integers(0, 90, 5000)).replace(80, None),
        }
    )
    key = ["name", "far"]
    groups = Groups.of(rows, key)
    times = groups.ordered(rows["ns"])
    ours = rows[groups.first].select(key).with_columns(
        count=groups.count(), sum=times.sums(), distinct=times.distinct(), **times.spread()
    )  # fmt: skip
    theirs = rows.group_by(key).agg(
        pl.len().cast(pl.UInt64).alias("count"),
        pl.col("ns").sum().alias("sum"),
        pl.col("ns").drop_nulls().n_unique().cast(pl.Int64).alias("distinct"),
        *spread(pl.col("ns")),
    )
    assert_frame_equal(ours, theirs, check_row_order=False)


def test_a_group_without_values_has_no_percentiles():
    rows = pl.DataFrame({"a": [1, 2], "ns": pl.Series([None, 5], dtype=pl.Int64)})
    groups = Groups.of(rows, ["a"])
    assert groups.ordered(rows["ns"]).spread()["p99_ns"].to_list() == [None, 5]
    assert Groups.of(rows.clear(), ["a"]).ordered(rows.clear()["ns"]).sums().to_list() == []


def test_endpoints_tell_when_what_was_slow_and_failed(shop):
    rows = [row for row in section(shop, "endpoints") if row["kind"] == "http"]
    assert [(r["client"], r["server"], r["endpoint"], r["count"], r["errors"]) for r in rows] == [
        ("curl", "10.0.0.2", "GET shop.example/", 1, 0),
        ("curl", "10.0.0.2", "GET shop.example/cart", 1, 1),
    ]
    assert [row["error_share"] for row in rows] == [0.0, 1.0]


def test_error_shares_are_told_of_each_side_for_itself(shop):
    rows = [row for row in section(shop, "error_shares") if row["kind"] == "http"]
    assert [(r["by"], r["name"], r["count"], r["errors"], r["error_share"]) for r in rows] == [
        ("endpoint", "GET shop.example/cart", 1, 1, 1.0),
        ("endpoint", "GET shop.example/", 1, 0, 0.0),
        ("peer", "10.0.0.2", 1, 0, 0.0),
        ("peer", "10.0.0.2", 1, 1, 1.0),
        ("client process", "curl", 1, 0, 0.0),
        ("client process", "curl", 1, 1, 1.0),
    ]
    assert rows[2]["ts"] < rows[3]["ts"]


def test_a_heat_map_counts_waits_by_time_and_length(shop):
    rows = [row for row in section(shop, "heat") if row["waiting_for"] != "TCP handshake"]
    assert [(row["waiting_for"], row["from_ns"] // MS, row["count"]) for row in rows] == [
        ("DNS answer", 2, 1), ("DNS answer", 5, 1), ("HTTP response", 5, 1), ("HTTP response", 200, 1)
    ]  # fmt: skip
    usual = [part.report.name for part in run(shop).sections]
    drawn = [part.report.name for part in run(shop, options=Options(pictures=True)).sections]
    assert sorted({*drawn} - {*usual}) == ["heat"]


def test_processes_join_what_their_rows_tell(shop):
    rows = section(shop, "processes")
    assert [row["comm"] for row in rows] == ["curl", "nginx"]
    curl = rows[0]
    assert (curl["packets"], curl["bytes"], curl["exit_code"]) == (14, 918, 22)
    assert (curl["syscalls"], curl["syscall_errors"], curl["syscall_time_ns"]) == (3, 1, 42 * MS)
    assert rows[1]["syscall_time_ns"] == 0


def test_a_limit_keeps_the_total(shop):
    part = run(shop, ["conversations"], Options(limit=2)).sections[0]
    assert part.frame is not None
    assert (part.frame.height, part.total) == (2, 3)


def test_unknown_sections_are_usage(shop):
    with pytest.raises(
        UsageError, match="there is no section 'nope'; there are findings, protocols, services"
    ):
        run(shop, ["nope"])


def test_packets_that_could_not_be_decoded_are_counted_while_reading(tmp_path):
    row = {"ts": T0, "frame": 1, "orig_len": 60, "data": b"", "stop_layer": "ip", "stop_reason": "length"}
    result = run(capture_of(tmp_path, packet=[row, row | {"direction": "in"}]), ["protocols"])
    assert result.losses.select("counter", "amount", "is_loss").rows() == [("packet_undecoded", 1, False)]


def test_losses_add_up_over_their_spans(tmp_path):
    rows = [synthetic.loss("packet_no_space", n, T0 + n * 1000 * MS) for n in (2, 5)]
    losses = run(capture_of(tmp_path, loss=rows), ["protocols"]).losses.to_dicts()
    assert [(row["counter"], row["amount"]) for row in losses] == [("packet_no_space", 7)]


def test_facts_say_what_the_filter_was(shop):
    assert run(shop.where("tcp"), ["protocols"]).facts["where"] == "tcp"
    assert "where" not in run(shop, ["protocols"]).facts
    assert json.dumps(run(shop, ["protocols"]).facts)


def test_a_large_capture_reports_the_same_and_again(monkeypatch):
    """One section after the other, and what tables were made of is let go of."""
    capture = Capture.open("sample_captures/mixed.parquet")
    small = run(capture)
    large = Capture.open("sample_captures/mixed.parquet")
    monkeypatch.setattr("stratokit.reports.run._TOGETHER_PACKETS", 0)
    for where in (None, "http"):
        once, again = (run(large if where is None else large.where(where)) for _ in range(2))
        before = small if where is None else run(capture.where(where))
        for other in (once, again):
            assert_frame_equal(before.losses, other.losses)
            for one, two in zip(before.sections, other.sections, strict=True):
                assert (one.frame is None) == (two.frame is None)
                if one.frame is not None and two.frame is not None:
                    assert_frame_equal(one.frame, two.frame)
