"""HTTP and DNS from a scap file alone: from the bytes that calls sent and received over sockets."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from helpers import scap_bytes as sb

from stratokit.engine import convert
from stratokit.engine.capture import Capture
from stratokit.reports.run import run

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "mixed.parquet"
REQUEST = b"GET /a HTTP/1.1\r\nHost: shop\r\nUser-Agent: t\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
ENDS = ("10.0.0.1", 4000, "10.0.0.2", 80)


def exchange(response: bytes, moved: int) -> bytes:
    """A client that connects, asks and reads `moved` bytes, of which `response` was recorded."""

    def call(ts: int, type_: int, *params: bytes) -> bytes:
        return sb.event(0x216, ts, 7, type_, *params)

    return b"".join(
        (
            sb.section(),
            sb.processes(9, sb.process(9, 7, 7, "curl")),
            call(1_000, 18, sb.u32(2), sb.u32(1), sb.u32(0)),
            call(1_100, 19, sb.s64(3)),
            call(1_200, 22, sb.s64(3)),
            call(1_300, 23, sb.s64(0), sb.tuple4(*ENDS)),
            call(2_000, 8, sb.s64(3), sb.u32(len(REQUEST))),
            call(2_100, 9, sb.s64(len(REQUEST)), REQUEST),
            call(2_200, 6, sb.s64(3), sb.u32(4096)),
            call(9_000, 7, sb.s64(moved), response),
        )
    )


def http(tmp_path: Path, data: bytes) -> dict:
    path = tmp_path / "x.scap"
    path.write_bytes(data)
    (row,) = Capture.open(path).table("http").collect().to_dicts()
    return row


def test_a_request_and_its_response(tmp_path):
    row = http(tmp_path, exchange(RESPONSE, len(RESPONSE)))
    assert (row["method"], row["host"], row["path"], row["status"]) == ("GET", "shop", "/a", 200)
    assert (row["client_ip"], row["client_port"], row["server_ip"], row["server_port"]) == ENDS
    assert (row["pid"], row["comm"], row["user_agent"]) == (7, "curl", "t")
    assert (row["response_body_bytes"], row["response_cut"]) == (5, False)
    # From when it was written to when it had been read.
    assert row["latency_ns"] == 7_000


def test_what_the_snaplen_cut_is_marked(tmp_path):
    row = http(tmp_path, exchange(RESPONSE[:40], len(RESPONSE)))
    assert (row["status"], row["response_cut"], row["request_cut"]) == (200, True, False)


@pytest.fixture(scope="module")
def again(tmp_path_factory) -> Capture:
    path = tmp_path_factory.mktemp("payload") / "mixed.scap"
    convert.convert_files([SAMPLE], path)
    return Capture.open(path)


def test_requests_of_a_recording(again):
    columns = ["method", "path", "status"]
    theirs = Capture.open(SAMPLE).table("http").select(columns).drop_nulls().unique().collect()
    ours = again.table("http").select(columns).drop_nulls().unique().collect()
    assert ours.height > 3
    # 80 bytes of each call were recorded: enough for the first lines.
    assert theirs.join(ours, on=columns, how="anti").is_empty()


def test_queries_of_a_recording(again):
    """Each once, with both ends, though a datagram's socket may know the other end alone."""
    ends = ["client_port", "server_port", "pid", "comm", "server_pid", "server_comm"]
    columns = ["qname", "qtype", "rcode", "outcome", *ends]
    theirs, ours = (c.table("dns").select(columns).collect() for c in (Capture.open(SAMPLE), again))
    assert ours.height > 10
    assert ours.sort(columns).equals(theirs.sort(columns))


def section(capture: Capture, name: str) -> pl.DataFrame:
    frame = run(capture, [name]).sections[0].frame
    assert frame is not None
    return frame


def test_what_was_found_in_a_recording(again):
    """Findings, latency and their course over time need no packets."""
    found = run(again, ["findings", "latency", "timeline", "services"])
    sections = {part.report.name: part for part in found.sections}
    told = set(sections["findings"].frame.select("rule", "whom").iter_rows())
    assert told <= set(section(Capture.open(SAMPLE), "findings").select("rule", "whom").iter_rows())
    assert {"resolver-failing", "server-errors"} <= {rule for rule, _ in told}
    assert set(sections["latency"].frame["waiting_for"]) == {"DNS answer", "HTTP response"}
    assert sections["timeline"].frame.height > 0
    assert sections["services"].note == "not recorded: this capture has no flows and no latency"


def test_packets_are_read_where_there_are_packets():
    packets = Capture.open(SAMPLE)
    assert packets.table("http").filter(pl.col("response_bytes") > 80).collect().height > 0
