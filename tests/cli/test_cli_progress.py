"""The bar is drawn on a terminal only, and nothing of it stays."""

from __future__ import annotations

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
