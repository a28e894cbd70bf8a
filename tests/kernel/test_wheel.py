"""What `pip install` gets records too: programs and schemas travel in the wheel."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]


def test_an_installed_wheel_records(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    # The libraries it needs are those of this environment; the package itself comes from the wheel alone.
    installed = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", installed, wheel]
    subprocess.run(command, check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import stratokit; print(stratokit.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
        env=environment,
    )
    assert where.stdout.startswith(str(installed))
    path = tmp_path / "a.parquet"
    subprocess.run(
        [sys.executable, "-P", "-m", "stratokit", "record", "-o", path, "--", "true"],
        check=True,
        cwd="/",
        env=environment,
    )
    assert pl.read_parquet(path).filter(kind="process", event="exec", comm="true").height == 1
