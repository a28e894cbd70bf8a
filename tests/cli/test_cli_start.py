"""What a verb loads before it works: what it does not need would be most of its time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "sample_captures"
DATAFRAMES = {"polars", "pyarrow", "numba"}
PROGRAM = """
import json, sys
from stratokit.cli.app import app
sys.argv = ["stratokit", *sys.argv[1:]]
try:
    app()
except SystemExit:
    pass
sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""


def loaded(*arguments: str | os.PathLike[str]) -> set[str]:
    command = [sys.executable, "-c", PROGRAM, *map(os.fspath, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return set(json.loads(found.stderr.splitlines()[-1]))


@pytest.fixture(scope="module")
def pcap(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("start") / "a.pcap"
    loaded("convert", SAMPLES / "mixed.parquet", path)
    return path


def test_help_loads_no_library() -> None:
    assert not loaded("--help") & (DATAFRAMES | {"numpy", "rich"})


def test_facts_of_a_pcap_file_need_no_dataframes(pcap: Path) -> None:
    assert not loaded("info", pcap, "--json") & DATAFRAMES


def test_a_conversion_needs_no_dataframes_and_no_decoder_of_applications(pcap: Path, tmp_path: Path) -> None:
    found = loaded("convert", pcap, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").exists()
    assert not found & {"polars", "rich", "stratokit.engine.capture", "stratokit.filters.compile"}
    assert not {name for name in found if name.startswith("stratokit.protocols.")}


@pytest.mark.parametrize("table", ["packets", "flows", "tcp"])
def test_a_table_loads_no_decoder_of_applications(pcap: Path, table: str) -> None:
    found = loaded("table", table, pcap)
    known = {"stratokit.protocols.base", "stratokit.protocols.registry", "stratokit.protocols.tls_keys"}
    assert {name for name in found if name.startswith("stratokit.protocols.")} <= known
    assert "stratokit.reports.run" not in found


@pytest.mark.parametrize("table", ["packets", "flows", "tcp", "dns", "http", "tls"])
def test_kernels_run_without_numba(pcap: Path, table: str) -> None:
    loaded("table", table, pcap)  # compiled now, if they were not before
    assert not loaded("table", table, pcap) & {"numba", "llvmlite"}


def test_a_report_runs_without_numba() -> None:
    loaded("report", SAMPLES / "mixed.parquet")
    assert not loaded("report", SAMPLES / "mixed.parquet") & {"numba", "llvmlite"}
