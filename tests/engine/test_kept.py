"""`convert --where`: of a capture what matches, as a capture of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
from helpers import corpus
from typer.testing import CliRunner

import stratokit as sk
from stratokit.cli.app import app
from stratokit.engine.convert import Choices, convert_files
from stratokit.engine.redact import redaction

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "mixed.parquet"
FILTERS = ("udp || tcp.flags.syn == 1", "frame.len > 100")


def kept(source: Path, output: Path, where: str, **choices) -> sk.Capture:
    convert_files([source], output, None, Choices(where=where, **choices))
    return sk.open(output)


def test_packets_that_match_and_what_belongs_to_them(tmp_path):
    where = 'proc.name == "nginx" || tcp.flags.syn == 1'
    found = kept(SAMPLE, tmp_path / "a.parquet", "tcp.flags.syn == 1")
    before = sk.open(SAMPLE).table("packets", "tcp.flags.syn == 1").collect()
    after = found.table("packets").collect()
    same = ["ts", "src_ip", "src_port", "dst_ip", "dst_port", "tcp_seq", "pid", "comm"]
    assert after.select(same).equals(before.select(same))
    assert after["frame"].unique().sort().to_list() == list(range(1, after["frame"].n_unique() + 1))
    assert after["flow_id"].unique().sort().to_list() == list(range(after["flow_id"].n_unique()))
    # Owners keep their names, nobody else is in the file.
    pids = set(found.rows("process").select("pid").collect()["pid"])
    acting = [found.rows(kind).select("pid").collect()["pid"] for kind in ("packet", "socket", "syscall")]
    assert pids
    assert pids <= set(pl.concat(acting).drop_nulls())
    assert found.info()["kept"] == ["tcp.flags.syn == 1"]
    again = kept(tmp_path / "a.parquet", tmp_path / "b.parquet", where)
    assert again.info()["kept"] == ["tcp.flags.syn == 1", where]


def test_a_filter_of_messages_keeps_whole_conversations(tmp_path):
    """So that the messages can be read again, from whatever is written."""
    where = "http.response.code >= 500"
    flows = sk.open(SAMPLE).where(where).table("flows").collect()
    requests = sk.open(SAMPLE).table("http").collect()
    expected = requests.filter(pl.col("flow_id").is_in(flows["flow_id"].implode()))
    assert 0 < expected.height < requests.height
    paths = expected["path"].unique().sort()
    for name in ("a.parquet", "a.pcapng", "a.pcap"):
        found = kept(SAMPLE, tmp_path / name, where).table("http").collect()
        assert found["path"].unique().sort().equals(paths)


def test_system_calls_that_match(tmp_path):
    found = kept(SAMPLE, tmp_path / "a.parquet", "evt.type == connect && evt.latency > 10us")
    expected = sk.open(SAMPLE).table("syscalls", "evt.type == connect && evt.latency > 10us").collect()
    assert expected.height > 0
    assert found.table("syscalls").collect()["ts"].equals(expected["ts"])
    assert found.rows("packet").collect().is_empty()


def test_with_redaction(tmp_path):
    choices = {"redaction": redaction("payload")}
    found = kept(SAMPLE, tmp_path / "a.pcapng", "http.response.code >= 500", **choices)
    assert found.rows("packet").select("data").collect()["data"].len() > 0
    assert b"HTTP/1.1" not in (tmp_path / "a.pcapng").read_bytes()


def test_what_cannot_be_meant_is_said_and_nothing_written(tmp_path):
    output = tmp_path / "a.pcap"
    for where in ("tcp.prot == 80", "tcp.port ==", "tls.ja3"):
        done = CliRunner().invoke(app, ["convert", str(SAMPLE), str(output), "--where", where])
        assert done.exit_code != 0, where
        assert list(tmp_path.iterdir()) == []


def test_nothing_matches(tmp_path):
    done = CliRunner().invoke(
        app, ["convert", str(SAMPLE), str(tmp_path / "a.pcapng"), "--where", "tcp.port == 1"]
    )
    assert done.exit_code == 0
    assert "nothing in" in done.output
    assert sk.open(tmp_path / "a.pcapng").table("packets").collect().is_empty()


def shown(path: Path, where: str | None = None) -> list[tuple[str, ...]]:
    names = "frame.time_epoch frame.len frame.cap_len frame.interface_name frame.comment frame.encap_type"
    command = ["tshark", "-n", "-r", str(path), "-T", "fields"]
    command += [part for name in names.split() for part in ("-e", name)]
    command += ["-Y", where] if where else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Blocks of types that it does not know are packets without time to tshark, and stay.
    return [line for line in done.stdout.splitlines() if not line.startswith("\t")]


@pytest.mark.corpus
@pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark")
@pytest.mark.parametrize("source", corpus.of_kind("pcapng")[::6])
def test_tshark_sees_what_it_would_have_selected(source, tmp_path):
    """Interfaces, sections and comments stay with the packets that are left."""
    output = tmp_path / "kept.pcapng"
    for where in FILTERS:
        output.unlink(missing_ok=True)
        kept(source, output, where)
        assert shown(output) == shown(source, where), where
