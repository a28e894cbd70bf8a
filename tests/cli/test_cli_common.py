"""What holds for every verb: help, wrong usage, bad files, no traceback, light start."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stratokit as package

REPOSITORY = Path(__file__).parents[2]
VERBS = ("record", "trigger", "report", "diff", "info", "table", "follow", "convert", "fields", "doctor")
READERS = (("info",), ("report",), ("table", "packets"))


def test_help_lists_every_verb(stratokit):
    done = stratokit("--help")
    assert done.code == 0
    assert re.findall(r"^  (\w+) +\S", done.out.split("Commands:")[1], re.MULTILINE) == list(VERBS)


def test_no_verb_shows_the_help(stratokit):
    done = stratokit()
    assert done.code == 2
    assert "Usage:" in done.out + done.err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_examples(stratokit, verb):
    done = stratokit(verb, "--help")
    assert done.code == 0
    assert re.search(rf"^  Examples:\n    stratokit {verb}", done.out, re.MULTILINE)


def test_version_is_that_of_the_project(stratokit):
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert package.__version__ == declared
    assert stratokit("--version").out == f"stratokit {declared}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["info"], ["table", "packets"], ["report", "--nope", "x"]]
)
def test_wrong_usage_is_exit_code_2(stratokit, arguments):
    done = stratokit(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage:" in done.err


@pytest.mark.parametrize("verb", READERS, ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "cannot read .*: No such file"),
        ("empty", "is empty"),
        ("foreign", "is of no known format"),
        ("table.parquet", "is a Parquet file, but no stratokit capture"),
        ("cut.parquet", "it was cut or never finished"),
    ],
)
def test_a_file_that_is_no_capture_is_explained(stratokit, bad_inputs, verb, name, reason):
    done = stratokit(*verb, bad_inputs[name])
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(rf"stratokit: .*{reason}.*\n", done.err)
    assert str(bad_inputs[name]) in done.err


@pytest.mark.usefixtures("shop")
def test_a_folder_and_a_pattern_name_captures(stratokit, tmp_path):
    (tmp_path / "notes.txt").write_text("not a capture")
    for source in (tmp_path, f"{tmp_path}/*.parquet"):
        assert '"packet": 14' in stratokit("info", source, "--json").out
    empty = tmp_path / "nothing"
    empty.mkdir()
    assert "there is no capture file in" in stratokit("info", empty).err
    assert "no file matches" in stratokit("info", f"{tmp_path}/*.pcap").err


def test_a_spool_is_no_capture_yet(stratokit, tmp_path):
    spool = tmp_path / "left.spool"
    spool.write_bytes(b"SPK1" + bytes(60))
    done = stratokit("report", spool)
    assert done.code == 1
    assert "stratokit convert" in done.err


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return done.stdout


def test_heavy_modules_load_on_first_use():
    heavy = "{'polars', 'pyarrow', 'numba', 'numpy', 'rich.console'}"
    assert python(f"import sys, stratokit; print({heavy} & set(sys.modules))") == "set()\n"
    assert python(f"import sys, stratokit.cli.app; print({heavy} & set(sys.modules))") == "set()\n"
    assert (
        python("import stratokit as sk; print(sk.open.__module__, sk.Capture.__name__)")
        == "stratokit.notebook Capture\n"
    )


def test_a_reader_that_went_away_is_no_error_worth_a_message(shop):
    program = f"{sys.executable} -m stratokit table packets {shop} --format csv | head -1"
    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.startswith("frame,ts,")
    assert done.stderr == ""
