"""`Capture`: files, rows, tables, filters."""

from __future__ import annotations

import polars as pl
import pytest
import synthetic
from helpers.frames import eth, fragments4, ipv4, pcap, udp
from synthetic import MS, T0, Network, Side

import stratokit as sk
from stratokit.engine.capture import Capture
from stratokit.engine.frames import polars_schema
from stratokit.engine.tables import entries
from stratokit.errors import StratokitError, UsageError
from stratokit.filters.errors import FilterError
from stratokit.schema import load
from stratokit.streams.source import deferred


@pytest.fixture
def shop(tmp_path):
    return synthetic.small_shop(tmp_path / "shop.parquet")


def frames(capture: Capture, where: str) -> list[int]:
    return capture.table("packets", where).select("frame").collect()["frame"].to_list()


def test_every_table_gives_the_columns_and_types_it_declares(shop):
    capture = Capture.open(shop)
    for name, entry in entries().items():
        frame = capture.table(name).collect()
        assert frame.columns == list(entry.columns), name
        text = (pl.Categorical, pl.String)
        for column, dtype in polars_schema(entry.table.columns).items():
            same = frame.schema[column] == dtype or (
                dtype == pl.String and isinstance(frame.schema[column], text)
            )
            assert same, (name, column, frame.schema[column])


def test_every_table_of_an_empty_capture_is_empty(tmp_path):
    capture = Capture.open(synthetic.write(tmp_path / "empty.parquet"))
    for name in capture.tables():
        assert capture.table(name).collect().is_empty(), name


def test_what_is_asked_for_again_is_not_made_again():
    made = []

    def rows() -> pl.DataFrame:
        made.append(1)
        return pl.DataFrame({"a": [1, 2]})

    frame = deferred(pl.Schema({"a": pl.Int64}), rows)
    assert made == []
    assert frame.filter(pl.col("a") > 1).collect().height == frame.select("a").head(1).collect().height == 1
    assert made == [1]


def test_rows_have_the_columns_of_their_kind(shop):
    capture = Capture.open(shop)
    for kind in load.capture().kinds:
        assert capture.rows(kind).collect_schema() == polars_schema(load.capture().of_kind(kind))
    assert capture.rows("packet").collect().height == 14


def test_columns_that_an_older_file_lacks_are_null(tmp_path, shop):
    import pyarrow.parquet as pq

    table = pq.read_table(shop)
    old = tmp_path / "old.parquet"
    with pq.ParquetWriter(old, table.drop(["pod", "retransmits"]).schema) as writer:
        writer.write_table(table.drop(["pod", "retransmits"]))
        writer.add_key_value_metadata({"stratokit.schema_version": "1", "stratokit.rows": '{"packet": 14}'})
    capture = Capture.open(old)
    packets = capture.table("packets").collect()
    assert packets.height == 14
    assert packets["pod"].null_count() == 14
    assert capture.table("sockets").collect()["retransmits"].to_list() == [None]


def test_columns_of_a_newer_file_are_left_alone(tmp_path, shop):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(shop)
    table = table.append_column("from_the_future", pa.array(["x"] * table.num_rows))
    new = tmp_path / "new.parquet"
    with pq.ParquetWriter(new, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"stratokit.schema_version": "99"})
    assert Capture.open(new).table("packets").collect().height == 14


def test_packets_are_read_without_their_bytes(shop):
    plan = Capture.open(shop).table("packets").select("frame", "ts").explain()
    assert "PROJECT 3/" in plan


def test_unknown_names_are_usage_errors(shop):
    capture = Capture.open(shop)
    with pytest.raises(UsageError, match="there is no table 'flow'; did you mean flows"):
        capture.table("flow")
    with pytest.raises(UsageError, match="there is no kind 'packets'"):
        capture.rows("packets")
    with pytest.raises(FilterError, match=r"there is no field tcp\.prot; the nearest is tcp\.port"):
        capture.where("tcp.prot == 1")
    with pytest.raises(UsageError, match="no input was named"):
        Capture.open([])


def test_numbers_of_a_second_file_follow_those_of_the_first(tmp_path, shop):
    other = synthetic.small_shop(tmp_path / "other.parquet")
    capture = Capture.open([shop, other])
    assert capture.table("packets").collect()["frame"].to_list() == list(range(1, 29))
    assert capture.table("flows").collect()["flow_id"].to_list() == list(range(6))
    assert Capture.open([shop, shop]).table("packets").collect().height == 14


def test_where_restricts_tables_with_the_field_directly(shop):
    capture = Capture.open(shop).where('proc.name == "nginx"')
    assert capture.filter_text == 'proc.name == "nginx"'
    assert capture.table("syscalls").collect()["syscall"].to_list() == ["epoll_wait"]
    assert capture.table("processes").collect()["pid"].to_list() == [20]
    assert capture.table("packets").collect().is_empty()


def test_where_restricts_other_tables_to_the_conversations_that_match(shop):
    capture = Capture.open(shop).where("http.response.code == 500")
    assert capture.table("http").collect()["path"].to_list() == ["/cart?id=7"]
    assert capture.table("flows").collect()["flow_id"].to_list() == [2]
    assert capture.table("packets").collect()["flow_id"].unique().to_list() == [2]
    assert capture.applies("flows")
    assert not capture.applies("syscalls")
    with pytest.raises(FilterError, match=r"http\.response\.code is known only in the tables packets, http"):
        capture.table("syscalls")


def test_where_adds_up_and_leaves_the_whole_alone(shop):
    capture = Capture.open(shop)
    both = capture.where("tcp").where("tcp.flags.syn == 1")
    assert both.table("packets").collect()["frame"].to_list() == [5, 6]
    assert capture.table("packets").collect().height == 14
    assert both.whole is capture


def test_protocols_are_words_in_packets_and_conversations(shop):
    capture = Capture.open(shop)
    assert frames(capture, "http") == [8, 9, 10, 11]
    assert frames(capture, "tcp && !http") == [5, 6, 7, 12, 13, 14]
    assert capture.table("flows", "http").collect()["flow_id"].to_list() == [2]
    assert capture.table("flows", "udp.port == 50001 or http").collect()["flow_id"].to_list() == [0, 2]


def test_addresses_of_both_families(tmp_path):
    net = Network()
    net.udp(Side("10.0.0.1", 1000, 1, "a"), Side("10.0.0.2", 2000), T0, b"x", MS, None)
    net.rows.append(
        net.rows[0] | {"src_ip": "fe80::1", "dst_ip": "::1", "ip_version": 6, "frame": 2, "flow_id": 1}
    )
    capture = Capture.open(synthetic.write(tmp_path / "both.parquet", packet=net.rows))
    assert frames(capture, "ip.addr == 10.0.0.0/8") == [1]
    assert frames(capture, "ip.addr != 10.0.0.9") == [1]
    assert frames(capture, "ipv6.addr == fe80::/10") == [2]
    assert frames(capture, "ip or ipv6") == [1, 2]
    with pytest.raises(FilterError, match=r"belongs with ipv6\.addr"):
        capture.table("packets", "ip.addr == ::1")


def test_a_process_is_one_row(shop):
    row = Capture.open(shop).table("processes", "proc.pid == 10").collect().row(0, named=True)
    assert (row["comm"], row["path"], row["cmdline"]) == ("curl", "/usr/bin/curl", "curl shop.example")
    assert (row["exit_code"], row["execs"]) == (22, 1)
    assert row["exit_ts"] is not None


def test_losses_have_their_sentence(tmp_path):
    rows = [synthetic.loss("packet_no_space", 3), synthetic.loss("of_a_later_version", 1)]
    losses = Capture.open(synthetic.write(tmp_path / "x.parquet", loss=rows)).table("losses").collect()
    assert losses["is_loss"].to_list() == [True, True]
    assert losses["meaning"].to_list()[0].startswith("packets were not recorded because the ring buffer")
    assert losses["meaning"].to_list()[1] == "of_a_later_version"


def test_a_file_damaged_in_the_middle_is_told(tmp_path, shop):
    data = bytearray(shop.read_bytes())
    data[200:4000] = bytes(3800)
    (tmp_path / "bad.parquet").write_bytes(data)
    with pytest.raises(StratokitError, match="cannot be read to its end"):
        sk.open(tmp_path / "bad.parquet").report(only=["protocols"])


def test_the_public_names(shop, tmp_path):
    capture = sk.open(shop)
    assert isinstance(capture.table("packets"), pl.LazyFrame)
    report = capture.report()
    assert "Nothing was lost." in str(report)
    assert report["protocols"].height > 0
    assert "<table>" in report._repr_html_()
    for name in ("r.json", "r.html", "r.txt"):
        report.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    capture.where("http").export(tmp_path / "http.parquet")
    assert sk.open(tmp_path / "http.parquet").info()["rows"]["packet"] == 4
    assert sorted(dir(sk)) == sorted(sk.__all__)
    with pytest.raises(AttributeError):
        sk.nonsense  # noqa: B018


def test_fields_of_frames_that_are_cut(tmp_path):
    """A fragment in a frame that is too short stands alone, and of addresses only whole ones are there."""
    one, two = fragments4(udp(b"a" * 56), 17, 32)
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap([eth(one[:-4]), eth(two), eth(b"")[:13], eth(b"")[:8], b""]))
    capture = Capture.open(path)
    assert frames(capture, "udp") == frames(capture, "udp.dstport == 53") == [1]
    assert frames(capture, "eth") == [1, 2, 3, 4]
    assert frames(capture, "eth.src") == [1, 2, 3]
    assert frames(capture, "eth.dst") == [1, 2, 3, 4]
    assert frames(capture, "eth.type") == [1, 2]


def test_l2tp_is_also_what_only_controls(tmp_path):
    messages = bytes.fromhex("c802 000c 0001 0000 0000 0001"), bytes.fromhex("c803 000c 0000 0001 0000 0001")
    none = bytes.fromhex("0001 0000 002a"), b"\x02"
    path = tmp_path / "l2tp.pcap"
    path.write_bytes(pcap([eth(ipv4(udp(m, 40000, 1701), 17)) for m in (*messages, *none)]))
    assert frames(Capture.open(path), "l2tp") == [1, 2]
