"""Run the program in this process and look at its exit code, stdout and stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import synthetic

from stratokit.cli import app


class Outcome(NamedTuple):
    """What a run of the program left."""

    code: int
    out: str
    err: str


@pytest.fixture
def stratokit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Outcome]:
    """stratokit("info", path) as on the command line, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["stratokit", *map(str, arguments)])
        code = app.run()
        out, err = capsys.readouterr()
        # The first test after a change of a kernel compiles it, and says so.
        err = "".join(line for line in err.splitlines(keepends=True) if "first use" not in line)
        assert "Traceback" not in err
        return Outcome(code, out, err)

    return run


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The capture that most tests read."""
    return synthetic.small_shop(tmp_path / "shop.parquet")


@pytest.fixture
def bad_inputs(tmp_path: Path) -> dict[str, Path]:
    """Files that are no captures, each in its own way."""
    paths = {
        name: tmp_path / name for name in ("missing", "empty", "foreign", "table.parquet", "cut.parquet")
    }
    paths["empty"].touch()
    paths["foreign"].write_text("#!/bin/sh\necho hello\n" * 100)
    whole = synthetic.small_shop(tmp_path / "whole.parquet").read_bytes()
    paths["cut.parquet"].write_bytes(whole[: len(whole) // 2])
    import polars as pl

    pl.DataFrame({"a": [1]}).write_parquet(paths["table.parquet"])
    return paths
