"""Plaintext of TLS beside the packets that carried it: three requests of curl to nginx over HTTP/2.

tls_plaintext.parquet was recorded with `record --tls` and has the secrets of curl's key log in it.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from stratokit.engine.capture import Capture
from stratokit.engine.convert import Choices, convert_files

BOTH = Path(__file__).with_name("tls_plaintext.parquet")


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """The same without secrets."""
    path = tmp_path_factory.mktemp("closed") / "closed.parquet"
    convert_files([BOTH], path, choices=Choices(strip_keys=True))
    return path


@pytest.mark.parametrize("table", ["http", "http2"])
def test_rows_are_those_that_a_key_log_gives(closed, table):
    plain, opened = (Capture.open(path).table(table).collect() for path in (closed, BOTH))
    assert plain.height == 3
    assert_frame_equal(plain, opened)


def test_no_request_comes_twice():
    rows = Capture.open(BOTH).table("http").select("flow_id", "method", "path", "status").collect()
    assert rows.rows() == [(flow, "GET", "/index.html", 200) for flow in range(3)]
    assert Capture.open(BOTH).table("tls").collect()["decrypted"].all()


def test_each_has_its_time_and_processes(closed):
    rows = Capture.open(closed).table("http").collect()
    assert set(rows.select("comm", "server_comm").rows()) == {("curl", "nginx")}
    assert (rows["server_latency_ns"] < rows["latency_ns"]).all()
    packets = Capture.open(closed).rows("packet").select("frame", "direction", "ts").collect()
    out = packets.filter(pl.col("direction") == "out")
    asked = rows.join(out, left_on="request_frame", right_on="frame")
    assert asked["ts"].to_list() == rows["ts_request"].to_list()


def test_without_packets_it_is_known_whose_requests_they_are(closed, tmp_path):
    """As recorded with --no-packets: where there are calls, parsers read what they moved, and it beside."""
    rows = pq.read_table(closed).filter(pc.field("kind") != "packet")
    place = rows.schema.get_field_index("kind")
    call = rows.filter(pc.field("kind") == "plaintext").slice(0, 1)
    call = call.set_column(
        place, rows.schema.field(place), pa.array(["syscall"]).cast(rows.schema.types[place])
    )
    path = tmp_path / "calls.parquet"
    pq.write_table(pa.concat_tables([call, rows]), path)
    assert Capture.open(path).rows("syscall").collect().height == 1
    found = Capture.open(path).table("http").collect()
    assert found.select("method", "status").rows() == [("GET", 200)] * 3
    known = found.select("comm", "client_ip", "client_port", "server_ip", "server_port")
    assert_frame_equal(known, Capture.open(closed).table("http").select(known.columns).collect())
