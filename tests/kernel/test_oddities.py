"""Unusual names, directories, descriptors and processes."""

import polars as pl
import pytest
from recording import recording
from workloads import oddities

pytestmark = pytest.mark.kernel


@pytest.fixture
def did(tmp_path):
    """did(scenario): what the program did, and its recording."""

    def run(scenario):
        folder = tmp_path / "work"
        folder.mkdir()
        with recording(tmp_path / "a.parquet") as made:
            facts = oddities.run(scenario, folder)
        return facts, made, str(folder)

    return run


def test_relative_paths_are_completed(did):
    facts, made, folder = did("folders")
    calls = made.rows("syscall").sort("ts")
    created = calls.filter(pl.col("pid").is_in([facts["pid"], facts["child"]]), syscall="openat").filter(
        (pl.col("arg2") & 0o100) != 0, pl.col("path").str.starts_with(folder)
    )
    assert created["path"].to_list() == facts["made"]
    assert created["fd_name"].to_list() == facts["made"]
    closed = calls.filter(pl.col("fd_name").is_in(facts["made"]), syscall="close")
    assert closed["fd_name"].to_list() == facts["made"]
    states = calls.filter(pl.col("pid").is_in([facts["pid"], facts["child"]]), syscall="statx")
    assert (
        states.filter(pl.col("ret") == 0, pl.col("path").is_in(facts["made"]))["path"].to_list()
        == facts["made"]
    )
    assert states.filter(errno="EBADF")["path"].to_list() == [""]
    for name, expected in (("renameat", facts["renamed"]), ("symlinkat", facts["linked"])):
        row = calls.filter(pl.col("pid") == facts["pid"], pl.col("syscall").str.starts_with(name))
        assert row.select("path", "path2").rows() == [tuple(expected)]


def test_names_that_are_no_utf8_stay_apart(did):
    facts, made, _ = did("names")
    opened = made.rows("syscall").filter(pl.col("pid") == facts["pid"], syscall="openat")
    assert opened.filter(pl.col("path").is_in(facts["made"]))["fd_name"].to_list() == facts["made"]
    row = made.rows("process").filter(pl.col("pid") == facts["child"], event="exec").row(0, named=True)
    assert row["path"].endswith("pr\\xf6g")
    assert row["cmdline"].endswith("'arg\\xff'")
    assert row["comm"] == "pr\\xf6g"


def test_a_file_keeps_its_name_under_every_number(did):
    facts, made, folder = did("duplicates")
    calls = made.rows("syscall").filter(
        pl.col("pid").is_in([facts["pid"], facts["child"]]),
        pl.col("fd_name").str.starts_with(folder),
        syscall="write",
    )
    assert calls.sort("ts")["fd_name"].to_list() == [f"{folder}/second", *[f"{folder}/first"] * 3]
    assert calls.sort("ts")["data"].to_list() == [b"2", b"1", b"1", b"1"]


def test_a_thread_that_executes_a_program(did):
    """It gets the number of the process's first thread, and its call began under another."""
    facts, made, _ = did("threads")
    child = pl.col("pid") == facts["child"]
    (call,) = made.rows("syscall").filter(child, syscall="execve").rows(named=True)
    assert (call["ret"], call["tid"], call["path"], call["comm"]) == (0, facts["child"], "/bin/cat", "cat")
    assert call["duration_ns"] > 0
    process = made.rows("process").filter(child).sort("ts")
    assert process["event"].to_list() == ["fork", "exec", "exit"]
    assert process["process_start"].n_unique() == 1
    # The first thread waited for the other; the program that came after it must not inherit that wait.
    assert made.rows("syscall").filter(child, pl.col("duration_ns") > 10**9).is_empty()


def test_no_process_is_too_short(did):
    facts, made, _ = did("short")
    rows = made.rows("process").filter(pl.col("pid").is_in(facts["children"]))
    for event in ("fork", "exec", "exit"):
        assert rows.filter(event=event).sort("ts")["pid"].to_list() == facts["children"]
    assert set(rows.filter(event="exec")["path"]) == {"/bin/true"}
    assert set(rows.filter(event="exec")["parent_pid"]) == {facts["pid"]}


def test_arguments_are_quoted_and_cut_with_notice(did):
    facts, made, _ = did("arguments")
    rows = made.rows("process").filter(pl.col("pid").is_in(facts["children"]), event="exec").sort("ts")
    blank, quote, empty, long = rows["cmdline"]
    assert blank == "/bin/true 'a b' last"
    assert quote == "/bin/true 'it'\"'\"'s' last"
    assert empty == "/bin/true '' last"
    assert long.startswith("/bin/true xxx")
    assert 4000 < len(long) < 4096
    assert made.losses()["process_cmdline_cut"] >= 1
