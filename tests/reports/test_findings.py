"""Each rule: rows that make it speak, rows that nearly do, and that its filter selects what it tells of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl
import pytest

from stratokit.engine.capture import Capture
from stratokit.engine.frames import polars_schema
from stratokit.engine.tables import entries
from stratokit.reports.base import Options
from stratokit.reports.findings import REPORT, rules

SAMPLES = Path(__file__).parents[2] / "sample_captures"
T0 = 1_767_225_600_000_000_000
SECOND = 1_000_000_000
DAY = 86_400 * SECOND


@dataclasses.dataclass
class Stub:
    """Tables as they are given, all others empty."""

    rows: dict[str, list[dict]]
    where: str = ""

    @property
    def whole(self) -> Stub:
        return self

    def recorded(self, name: str) -> bool:
        return name in entries()

    def applies(self, name: str) -> bool:
        return name in entries()

    def table(self, name: str) -> pl.LazyFrame:
        schema = polars_schema(entries()[name].table.columns)
        rows = [{column: row.get(column) for column in schema} for row in self.rows.get(name, [])]
        physical = {n: pl.Int64 if t == pl.Datetime else t for n, t in schema.items()}
        return pl.LazyFrame(rows, schema=physical).cast(dict(schema))


def found(rule: str, **tables: list[dict]) -> list[dict]:
    """What one rule says of these rows."""
    rows = REPORT.build(Stub(tables), Options()).collect().to_dicts()
    return [row for row in rows if row["rule"] == rule]


def questions(count: int, **more: object) -> list[dict]:
    """DNS questions, one a second, answered within a millisecond unless `more` says otherwise."""
    row = {"client_ip": "10.0.0.1", "server_ip": "10.0.0.9", "server_port": 53, "qname": "a.test", "rcode": 0}
    row |= {"latency_ns": 1_000_000} | more
    return [row | {"ts_query": T0 + k * SECOND, "query_frame": 2 * k + 1} for k in range(count)]


def requests(count: int, flow: int | None = None, **more: object) -> list[dict]:
    row = {"client_ip": "10.0.0.1", "server_ip": "10.0.0.2", "server_port": 80, "host": "shop", "path": "/a"}
    row |= {"status": 200, "latency_ns": 1_000_000} | more
    return [
        row
        | {"flow_id": k if flow is None else flow, "ts_request": T0 + k * SECOND}
        | {"request_frame": 2 * k + 1, "response_frame": 2 * k + 2}
        for k in range(count)
    ]


def connections(count: int, state: str, **more: object) -> dict[str, list[dict]]:
    """Tables `tcp` and `flows`."""
    tcp = [
        {"flow_id": k, "syn_ts": T0 + k * SECOND, "conn_state": state, "retransmissions": 0} | more
        for k in range(count)
    ]
    flow = {"server_ip": "fd00::2", "server_port": 443, "packets_c2s": 50, "packets_s2c": 50}
    flows = [flow | {"flow_id": k, "first_ts": T0, "last_ts": T0 + SECOND} for k in range(count)]
    return {"tcp": tcp, "flows": flows}


def handshakes(count: int, alert: str | None) -> list[dict]:
    row = {"server_ip": "10.0.0.2", "server_port": 443, "alert": alert, "alert_by": alert and "client"}
    return [row | {"ts": T0 + k * SECOND, "client_hello_frame": k + 1} for k in range(count)]


def certificates(days: int) -> list[dict]:
    row = {"server_ip": "10.0.0.2", "server_port": 443, "cert_subject": "CN=shop"}
    row |= {"cert_not_before": T0 - 99 * DAY, "cert_not_after": T0 + days * DAY}
    return [row | {"ts": T0 + k * SECOND, "client_hello_frame": k + 1} for k in range(3)]


def segments(*sent: tuple[int, int], answered: int = 0) -> dict[str, list[dict]]:
    """One connection: sequence number and payload of the server a second, and the last ACK of the client."""
    tables = connections(1, "S1", retransmissions=2)
    for frame, (seq, size) in enumerate(sent, start=1):
        row = {"frame": frame, "ts": T0 + frame * SECOND, "flow_id": 0, "tcp_seq": seq, "payload_len": size}
        row |= {"src_ip": "fd00::2", "src_port": 443, "dst_ip": "fd00::1", "tcp_ack": 7, "direction": "out"}
        tables.setdefault("packets", []).append(row)
    row = {"src_ip": "fd00::1", "src_port": 40000, "dst_ip": "fd00::2", "direction": "in", "payload_len": 0}
    row |= {"flow_id": 0, "tcp_seq": 7}
    syn = {"ts": T0, "tcp_flags": 2, "tcp_ack": 1_000_000}  # what it leaves there means nothing
    tables["packets"].append(row | syn)
    for ts, ack in ((0, 100), (60, answered or 100)):
        tables["packets"].append(row | {"ts": T0 + ts * SECOND, "tcp_flags": 16, "tcp_ack": ack})
    return tables


def one_behind_another(wait_ns: int) -> list[dict]:
    """Four requests at once on one connection, answered in order."""
    rows = requests(4, flow=1)
    for k, row in enumerate(rows):
        row |= {"ts_request": T0 + 1000 * k, "ts_response": T0 + (k + 1) * wait_ns, "transfer_ns": 0}
    return rows


def opened(fds: list[int], **more: object) -> list[dict]:
    row = {"pid": 12, "process_start": T0, "comm": "app", "syscall": "openat"} | more
    return [row | {"ts": T0 + k * SECOND, "ret": fd} for k, fd in enumerate(fds)]


def file_calls(count: int, duration_ns: int) -> list[dict]:
    row = {"comm": "db", "syscall": "fsync", "fd_kind": "file", "fd_name": "/data/wal", "ret": 0}
    return [row | {"ts": T0 + k * SECOND, "duration_ns": duration_ns} for k in range(count)]


def dropped(count: int, reason: str) -> list[dict]:
    row = {"pid": 12, "process_start": T0, "comm": "named", "dst_port": 53, "drop_reason": reason}
    return [row | {"ts": T0 + k * SECOND} for k in range(count)]


STUCK = [(100, 1400)] * 3
CASES = {
    "zero-window": (
        connections(2, "SF", zero_window_c2s_ns=150_000_000, zero_windows_s2c=2),
        (
            "In 2 of 2 connections [fd00::2]:443 took no more data, for 300 ms all together: applications "
            "there read too slowly, and the clients wait."
        ),
        connections(1, "SF", zero_window_c2s_ns=150_000_000, zero_windows_s2c=2),
    ),
    "small-mtu": (
        segments((50, 50), *STUCK),
        (
            "Segments of 1400 bytes or more from fd00::2 were sent 3 times and never arrived, in 1 "
            "connection with [fd00::2]:443, where small ones did: the MTU is smaller on the way, and no "
            "ICMP says so."
        ),
        segments((50, 50), *STUCK, answered=1500),
    ),
    "certificate": (
        {"tls": certificates(10)},
        "The certificate CN=shop of 10.0.0.2:443 expires on 2026-01-11, in 9 days.",
        {"tls": certificates(15)},
    ),
    "head-of-line": (
        {"http": one_behind_another(21_000_000)},
        (
            "3 of 4 requests to 10.0.0.2:80 waited for earlier responses of their connection, 62 ms at most, "
            "in 1 connection."
        ),
        {"http": one_behind_another(21_000_000)[:3]},
    ),
    "receive-buffer": (
        {"drops": dropped(3, "SOCKET_RCVBUFF") + dropped(2, "NO_SOCKET")},
        "named (pid 12) lost 3 packets at port 53 because its receive buffer was full.",
        {"drops": dropped(30, "NO_SOCKET")},
    ),
    "fd-leak": (
        {"syscalls": opened(list(range(3, 83)))},
        "app (pid 12) opened 80 descriptors and keeps them: the lowest free one rose from 3 to 62.",
        {"syscalls": opened([*range(3, 82), 4])},
    ),
    "slow-disk": (
        {"syscalls": file_calls(3, 80_000_000) + file_calls(50, 1000)},
        "db waited 50 ms or more in 3 of 53 calls on files, 80 ms at most, most often in fsync on /data/wal.",
        {"syscalls": file_calls(2, 80_000_000) + file_calls(50, 49_000_000)},
    ),
    "resolver-failing": (
        {"dns": questions(2, rcode=2) + questions(1, rcode=None) + questions(20)},
        "The resolver 10.0.0.9:53 failed 3 of 23 questions: 2 SERVFAIL, 0 REFUSED, 1 unanswered.",
        {"dns": questions(2, rcode=2) + questions(20)},
    ),
    "resolver-slow": (
        {"dns": questions(3, latency_ns=150_000_000) + questions(20)},
        "The resolver 10.0.0.9:53 took 100 ms or more for 3 of 23 answers, 150 ms at most.",
        {"dns": questions(30, latency_ns=99_000_000)},
    ),
    "names-denied": (
        {"dns": questions(5, rcode=3, search_id=1, qname="a.b.test") + questions(5)},
        (
            "5 of 10 questions of 10.0.0.1 were for names that do not exist (as a.b.test), 5 of them by "
            "trying search domains."
        ),
        {"dns": questions(5, rcode=3) + questions(6)},
    ),
    "connect-failing": (
        connections(3, "REJ"),
        "3 of 3 connections to [fd00::2]:443 were refused.",
        connections(1, "REJ"),
    ),
    "retransmissions": (
        connections(2, "SF", retransmissions=6),
        "12 of 200 packets between [fd00::2]:443 and its clients were sent again, in 2 connections.",
        connections(9, "SF", retransmissions=1),
    ),
    "tls-failing": (
        {"tls": handshakes(2, "unknown_ca") + handshakes(8, None)},
        "2 of 10 TLS handshakes with 10.0.0.2:443 failed: the client said unknown_ca.",
        {"tls": handshakes(1, "unknown_ca") + handshakes(9, "close_notify")},
    ),
    "server-errors": (
        {"http": requests(3, status=503) + requests(30)},
        "shop answered 3 of 33 requests with a server error, most often 503, as for /a.",
        {"http": requests(30, status=404) + requests(2, status=500)},
    ),
    "slow-endpoint": (
        {"http": requests(3, path="/slow?q=1", latency_ns=50_000_000) + requests(9)},
        "shop/slow kept 3 requests waiting, half of them 50.0 ms or more; half of all take 1.0 ms.",
        {"http": requests(12, latency_ns=50_000_000)},
    ),
    "churn": (
        {"http": requests(20)},
        (
            "10.0.0.1 opened 20 of 20 connections to 10.0.0.2:80 for one request each: without keep-alive "
            "every request waits for a handshake."
        ),
        {"http": requests(19) + requests(40, flow=99)},
    ),
}


def test_every_rule_has_a_case():
    assert sorted(CASES) == sorted(rules())
    assert all(rule.doc and rule.needs for rule in rules().values())


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_speaks_when_it_should_and_only_then(rule):
    tables, sentence, nearly = CASES[rule]
    (finding,) = found(rule, **tables)
    assert finding["finding"] == sentence
    assert finding["since"] < finding["until"]
    assert 0.5 < finding["confidence"] < 1
    assert found(rule, **nearly) == []


def test_a_group_that_is_asked_in_vain_or_waits_is_no_resolver():
    asked = {"transport": "mdns", "server_ip": "224.0.0.251", "server_port": 5353}
    silent = questions(9, rcode=None, latency_ns=None, **asked)
    assert found("resolver-failing", dns=silent) == []
    assert found("resolver-slow", dns=questions(9, latency_ns=400_000_000, **asked)) == []
    assert found("resolver-failing", dns=[row | {"transport": "udp"} for row in silent])


def test_clients_with_the_same_trouble_are_one_finding():
    rows = [*requests(20), *requests(30, client_ip="10.0.0.3"), *requests(5, client_ip="10.0.0.4")]
    rows = [row | {"flow_id": number} for number, row in enumerate(rows)]
    (finding,) = found("churn", http=rows)
    assert finding["finding"].startswith(
        "2 clients, 10.0.0.3 most often, opened 55 of 55 connections to 10.0.0.2:80 for one request each"
    )
    assert finding["filter"] == "ip.dst == 10.0.0.2 && tcp.dstport == 80"
    rows = [*questions(5, rcode=3), *questions(6, rcode=3, search_id=1, client_ip="10.0.0.3"), *questions(1)]
    (finding,) = found("names-denied", dns=rows)
    assert "11 of 12 questions of 2 clients, most of them of 10.0.0.3, were for names" in finding["finding"]
    assert "6 of them by trying" in finding["finding"]
    assert finding["filter"] == "dns.flags.rcode == 3"


def test_a_connection_that_nothing_answered_is_not_called_refused():
    (finding,) = found("connect-failing", **connections(2, "S0"))
    assert finding["finding"] == "2 of 2 connections to [fd00::2]:443 were never answered."
    assert finding["filter"] == 'ipv6.dst == fd00::2 && tcp.dstport == 443 && tcp.connection.state == "S0"'


@pytest.mark.parametrize(
    ("spread", "sentence", "selects"),
    [
        (
            lambda k: {"server_port": k + 1},
            "12 of 12 connections to 12 ports of fd00::2 were never answered.",
            'ipv6.dst == fd00::2 && tcp.connection.state == "S0"',
        ),
        (
            lambda k: {"server_ip": f"10.0.0.{k}", "server_port": 22},
            "12 of 12 connections to port 22 of 12 hosts were never answered.",
            'tcp.dstport == 22 && tcp.connection.state == "S0"',
        ),
    ],
)
def test_a_scan_is_one_finding(spread, sentence, selects):
    tables = connections(12, "S0")
    tables["flows"] = [flow | spread(k) for k, flow in enumerate(tables["flows"])]
    (finding,) = found("connect-failing", **tables)
    assert (finding["finding"], finding["filter"], finding["count"]) == (sentence, selects, 12)
    tables["flows"] = tables["flows"][:9]
    assert found("connect-failing", **tables) == []


def test_a_host_beside_scanned_ones_is_named():
    tables = connections(120, "REJ")
    ends = [{"server_ip": f"10.0.0.{k // 13}", "server_port": k % 13 + 1} for k in range(117)]
    ends += [{"server_ip": "10.0.0.9", "server_port": 1}] * 3
    tables["flows"] = [flow | end for flow, end in zip(tables["flows"], ends, strict=True)]
    said = {row["whom"]: row["count"] for row in found("connect-failing", **tables)}
    assert said == {f"13 ports of 10.0.0.{k}": 13 for k in range(9)} | {"10.0.0.9:1": 3}


@pytest.mark.parametrize(
    ("days", "words"), [(-3, "expired on 2025-12-29"), (0, "expires on 2026-01-01, in 0 days")]
)
def test_a_certificate_that_has_expired_is_said_to(days, words):
    rows = [row | {"ts": row["ts"] - SECOND * 10} for row in certificates(days)]
    (finding,) = found("certificate", tls=rows)
    assert finding["finding"] == f"The certificate CN=shop of 10.0.0.2:443 {words}."


def test_a_process_that_closes_what_it_opened_last_leaks_nothing():
    assert found("fd-leak", syscalls=opened([*range(3, 60), *[5] * 100])) == []


def test_a_process_without_free_descriptors_is_told():
    refused = [row | {"errno": "EMFILE"} for row in opened([-24, -24])]
    (finding,) = found("fd-leak", syscalls=opened([3] * 40) + refused)
    assert finding["finding"].endswith("from 3 to 3, and 2 times none was left.")


def test_a_peer_that_is_dead_is_no_small_mtu():
    tables = segments((50, 50), *STUCK)
    tables["packets"] = [row for row in tables["packets"] if row["ts"] < T0 + 60 * SECOND]
    assert found("small-mtu", **tables) == []


def test_losses_nearby_lower_the_confidence():
    errors = {"http": requests(3, status=500)}
    loss = {"counter": "ring_full", "amount": 5, "is_loss": True, "span_ns": SECOND}
    (sure,) = found("server-errors", **errors)
    (near,) = found("server-errors", **errors, losses=[loss | {"ts": T0}])
    (far,) = found("server-errors", **errors, losses=[loss | {"ts": T0 + 3600 * SECOND}])
    assert near["confidence"] < sure["confidence"] == far["confidence"] == 0.75


def test_nothing_is_said_of_nothing():
    assert REPORT.build(Stub({}), Options()).collect().is_empty()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dns-failures", {"resolver-failing"}),
        ("nginx-curl", {"churn", "server-errors"}),
        ("tls", {"tls-failing"}),
        ("slow-server", set()),
    ],
)
def test_samples_have_what_was_done_to_them_and_filters_select_it(name, expected):
    capture = Capture.open(SAMPLES / f"{name}.parquet")
    rows = REPORT.build(capture, Options()).collect().to_dicts()
    assert {row["rule"] for row in rows} == expected
    for row in rows:
        selected = capture.table(row["table"], where=row["filter"]).collect()
        if row["rule"] == "churn":  # its evidence are connections, and these have requests
            assert selected["flow_id"].n_unique() == row["of"]
        else:
            assert selected.height == row["count"]
