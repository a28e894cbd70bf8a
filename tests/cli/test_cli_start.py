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
    assert not found & {"stratokit.reports.run", "stratokit.filters.compile", "stratokit.filters.parse"}
    assert "pyarrow.compute" not in found


@pytest.mark.parametrize("table", ["packets", "flows", "tcp", "dns", "http", "tls"])
def test_kernels_run_without_numba(pcap: Path, table: str) -> None:
    loaded("table", table, pcap)  # compiled now, if they were not before
    assert not loaded("table", table, pcap) & {"numba", "llvmlite", "pydantic"}


@pytest.mark.parametrize("verb", [("report",), ("table", "packets", "--where", "tcp.port == 80")])
def test_nor_do_those_of_a_capture(verb: tuple[str, ...]) -> None:
    loaded(*verb, SAMPLES / "mixed.parquet")
    found = loaded(*verb, SAMPLES / "mixed.parquet")
    assert not found & {"numba", "llvmlite", "pydantic"}
    assert ("pyarrow.compute" in found) == (verb == ("report",))


def test_words_that_are_not_plain_are_refused_as_typer_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stratokit", "table"]
    for words, error in (
        (["packets"], "Missing argument 'IN...'"),
        (["packets", "x.pcap", "--limit", "many"], "Invalid value for '--limit'"),
        (["packets", "x.pcap", "--limit", "-1"], "Invalid value for '--limit'"),
        (["packets", "x.pcap", "--format", "xml"], "Invalid value for '--format'"),
        (["packets", "x.pcap", "--none"], "No such option"),
    ):
        done = subprocess.run([*command, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert error in done.stderr


def test_an_early_end_loses_nothing(pcap: Path, tmp_path: Path) -> None:
    """The program ends without taking its libraries apart."""
    command = [sys.executable, "-m", "stratokit", "table", "packets"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*command, pcap], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "stratokit: No space left on device\n")
    shown = subprocess.run([*command, pcap, "--format", "csv"], capture_output=True, check=True).stdout
    with (tmp_path / "a.csv").open("wb") as file:
        subprocess.run([*command, pcap, "--format", "csv"], stdout=file, check=True)
    assert (tmp_path / "a.csv").read_bytes() == shown
    assert shown.count(b"\n") > 100
