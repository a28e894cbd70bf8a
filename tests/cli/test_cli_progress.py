"""What is said while files are read, and when one ended early; the bar is drawn on a terminal only."""

from __future__ import annotations

import gzip
import struct

import pytest

from stratokit.cli import output


@pytest.fixture
def _terminal(monkeypatch):
    monkeypatch.setattr(output, "_is_watched", lambda: True)
    monkeypatch.setattr(output, "_PATIENCE_S", -1)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")


def test_nothing_when_piped(capsys):
    with output.progress("writing x") as report:
        assert report is None
    with output.reading(protocols=False):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("_terminal")
def test_bytes_rate_and_time_left_on_a_terminal(capsys):
    with output.progress("writing x") as report:
        assert report is not None
        report(1, 10_000_000)
        report(2_500_000, 10_000_000)
        report(10_000_000, 10_000_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert "writing x" in err
    assert "10.0 MB" in err
    assert "/s" in err or "?" in err
    assert "\x1b[2K" in err  # cleared at the end


@pytest.mark.usefixtures("_terminal")
def test_short_work_has_no_bar(capsys, monkeypatch):
    monkeypatch.setattr(output, "_PATIENCE_S", 60)
    with output.progress("writing x") as report:
        assert report is not None
        report(1, 10)
        report(10, 10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_a_cut_file_is_read_and_said(stratokit, tmp_path, packed):
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    record = struct.pack("<IIII", 1, 0, 60, 60) + bytes(60)
    cut, none = tmp_path / "cut.pcap", tmp_path / "none.pcap"
    cut.write_bytes(packed(head + 3 * record[:] + record[:40]))
    none.write_bytes(packed(head + record[:40]))
    done = stratokit("table", "packets", cut, "--select", "frame", "--format", "csv")
    assert (done.code, done.out) == (0, "frame\n1\n2\n3\n")
    assert "cut.pcap: the file ends inside a record (byte 252); what stands before was read" in done.err
    done = stratokit("convert", cut, tmp_path / "out.parquet")
    assert (done.code, done.out) == (0, "")
    assert "lost: 1 files end in the middle of a record" in done.err
    for arguments in (("table", "packets"), ("report",), ("info",), ("table", "flows")):
        done = stratokit(*arguments, none)
        assert done.code == 1
        assert "nothing could be read: the file ends inside a record (byte 24)" in done.err
