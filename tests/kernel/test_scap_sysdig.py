"""Real programs, recorded by eBPF: sysdig shows of the scap file what our tables say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import polars as pl
import pytest
from helpers import sysdig
from recording import recording
from workloads import nginx

from stratokit.engine import convert
from stratokit.engine.capture import Capture

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not sysdig.SYSDIG, reason="sysdig is not installed"),
]

SCRIPT = r"""
cd "$1"; echo hello > a.txt; cat a.txt > b.txt; mv b.txt c.txt; mkdir d; cd d
cat ../a.txt ../c.txt > e.txt; ls -l . | grep e.txt; rm e.txt; cd ..; rmdir d
exec 3<>/dev/tcp/127.0.0.1/$2; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3 >/dev/null; exec 3>&-
curl -s http://127.0.0.1:$2/ > /dev/null
( sleep 0.01 ) & wait
ln -s a.txt l.txt; chmod 600 a.txt; cat /nonexistent
exec true
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scap")
    work = folder / "work"
    work.mkdir()
    with nginx.nginx() as site, recording(folder / "a.parquet", "--syscalls", "all") as record:
        command = ["bash", "-c", SCRIPT, "bash", str(work), str(site.port)]
        subprocess.run(command, check=True, capture_output=True)
    assert not record.losses().keys() & {"syscall_no_space", "process_no_space"}
    convert.convert_files([record.path], folder / "a.scap")
    return record.path


def of_script(made: Path) -> pl.Expr:
    """Our own processes: others on the machine may be of any kind."""
    rows = Capture.open(made).rows("process").collect()
    root = rows.filter(pl.col("cmdline").str.starts_with("bash -c")).sort("ts")["pid"].to_list()[-1:]
    pids = set(root)
    for _ in range(4):
        pids |= set(rows.filter(pl.col("parent_pid").is_in(list(pids)))["pid"].to_list())
    return pl.col("pid").is_in(list(pids)) | (pl.col("comm") == "nginx")


def test_every_event_is_what_our_tables_say(made):
    theirs = sysdig.events(made.with_suffix(".scap"), *sysdig.FIELDS)
    both = sysdig.compared(Capture.open(made).rows("syscall").collect(), theirs)
    chosen = both.filter(of_script(made))
    assert {"openat", "read", "write", "connect", "execve", "clone", "dup2", "rename"} & set(
        chosen["syscall"]
    )
    assert chosen.filter(pl.col("fd_kind") == "file", pl.col("fd_name").is_not_null()).height > 100
    sysdig.equal(chosen, Capture.open(made).rows("process").collect())


def test_arguments_are_those_of_the_calls(made):
    theirs = sysdig.events(made.with_suffix(".scap"), *sysdig.FIELDS)
    both = sysdig.compared(Capture.open(made).rows("syscall").collect(), theirs).filter(of_script(made))
    opened = both.filter(pl.col("syscall") == "openat", pl.col("ret") >= 0)
    for row in opened.select("path", "arg2", "evt.args").iter_rows(named=True):
        assert f"name={row['path']}" in row["evt.args"]
        assert ("O_CREAT" in row["evt.args"]) == bool(row["arg2"] & 0o100), row
        assert ("O_CLOEXEC" in row["evt.args"]) == bool(row["arg2"] & 0o2000000), row
    written = both.filter(pl.col("syscall") == "write", pl.col("ret") > 0)
    assert written.height
    for row in written.select("ret", "evt.args").iter_rows(named=True):
        assert row["evt.args"].startswith(f"res={row['ret']} data=")


@pytest.mark.parametrize("chisel", ["topprocs_file", "topfiles_bytes"])
def test_chisels_count_what_we_count(made, chisel):
    """Bytes of files that were read and written, by process and by file."""
    done = subprocess.run(
        ["sysdig", "-r", str(made.with_suffix(".scap")), "-c", chisel],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = [line.split(maxsplit=1) for line in done.stdout.splitlines()[2:] if line.strip()]
    assert shown
    rows = (
        Capture.open(made)
        .rows("syscall")
        .filter(
            pl.col("fd_kind").is_in(["file", "char", "directory"]),
            pl.col("syscall").is_in(["read", "write", "pread64", "pwrite64", "readv", "writev"]),
            pl.col("ret") > 0,
        )
    )
    key = ["comm", "pid"] if chisel == "topprocs_file" else ["fd_name"]
    largest = rows.group_by(key).agg(pl.col("ret").sum()).select(pl.col("ret").max()).collect().item()
    assert shown[0][0] == _amount(largest), (shown[0], largest)


def _amount(size: int) -> str:
    """As sysdig writes it."""
    for unit, scale in (("M", 1 << 20), ("KB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.2f}{unit}"
    return f"{size}B"
