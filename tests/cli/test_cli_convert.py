"""`stratokit convert`, as far as it is the program's own doing; the formats have tests of their own."""

from __future__ import annotations

import pytest
import synthetic

from stratokit.engine.capture import Capture


def test_to_parquet_keeps_every_row(stratokit, shop, tmp_path):
    copy = tmp_path / "copy.parquet"
    done = stratokit("convert", shop, copy)
    assert (done.code, done.out, done.err) == (0, "", "")
    before, after = Capture.open(shop), Capture.open(copy)
    assert after.info()["rows"] == before.info()["rows"]
    assert after.info()["host"] == before.info()["host"]
    for kind in before.info()["rows"]:
        assert after.rows(kind).collect().equals(before.rows(kind).collect())


def test_several_captures_become_one_without_mixing_their_numbers(stratokit, shop, tmp_path):
    other = synthetic.small_shop(tmp_path / "other.parquet")
    assert stratokit("convert", shop, other, tmp_path / "both.parquet").code == 0
    packets = Capture.open(tmp_path / "both.parquet").table("packets").collect()
    assert packets["frame"].n_unique() == 28
    assert packets["flow_id"].n_unique() == 6


def test_to_pcapng_each_packet_once(stratokit, shop, tmp_path):
    path = tmp_path / "out.pcapng"
    done = stratokit("convert", shop, path)
    assert (done.code, done.err) == (0, "")
    assert path.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"


def test_to_pcap_and_back(stratokit, shop, tmp_path):
    assert stratokit("convert", shop, tmp_path / "out.pcap").code == 0
    there = (
        Capture.open(tmp_path / "out.pcap")
        .table("packets")
        .select("frame", "ts", "src_ip", "tcp_seq")
        .collect()
    )
    assert there.equals(Capture.open(shop).table("packets").select(there.columns).collect())


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["SHOP"], 2, "a file to read and a file to write"),
        (["SHOP", "out.doc"], 2, "its name must end in one of"),
        (["SHOP", "SHOP"], 2, "to be read and written at once"),
        (["SHOP", "no/folder/out.parquet"], 1, "there is no folder"),
        (["missing.parquet", "out.parquet"], 1, "No such file"),
        (["SHOP", "exists.parquet"], 1, "exists; --force replaces it"),
        (["left.spool", "out.pcapng"], 2, "make a .parquet file of it first"),
        (["left.spool", "SHOP", "out.parquet"], 2, "convert it without files of other kinds"),
    ],
)
def test_wrong_usage_leaves_nothing(stratokit, shop, tmp_path, arguments, code, reason):
    (tmp_path / "exists.parquet").write_text("precious")
    (tmp_path / "left.spool").write_bytes(b"SPK1" + bytes(60))
    before = sorted(path.name for path in tmp_path.iterdir())
    done = stratokit("convert", *(shop if a == "SHOP" else a for a in arguments))
    assert (done.code, done.out) == (code, "")
    assert reason in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_spool_is_explained(stratokit, tmp_path):
    (tmp_path / "left.spool").write_bytes(b"SPK1" + bytes(60))
    done = stratokit("convert", "left.spool", "out.parquet")
    assert done.code == 1
    assert "left.spool" in done.err
    assert not (tmp_path / "out.parquet").exists()
