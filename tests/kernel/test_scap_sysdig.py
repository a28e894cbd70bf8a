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


_IO = (
    "read", "write", "pread64", "pwrite64", "readv", "writev", "sendto", "recvfrom", "sendmsg", "recvmsg",
    "copy_file_range",
)  # fmt: skip


def moved(made: Path, *kinds: str) -> pl.LazyFrame:
    """Calls that moved bytes."""
    rows = Capture.open(made).rows("syscall")
    return rows.filter(pl.col("fd_kind").is_in(kinds), pl.col("syscall").is_in(_IO), pl.col("ret") > 0)


def told(shown: dict[tuple[str, ...], str], ours: pl.DataFrame) -> None:
    """What a chisel shows (its thirty largest) are our amounts; last column of `ours`."""
    assert len(shown) > 3
    amounts = {tuple(str(cell) for cell in key): sysdig.amount(size) for *key, size in ours.rows()}
    assert {key: amounts.get(key) for key in shown} == shown


@pytest.mark.parametrize(
    ("chisel", "keys"), [("topprocs_file", ["comm", "pid"]), ("topfiles_bytes", ["fd_name"])]
)
def test_chisels_of_files_count_what_we_count(made, chisel, keys):
    """Bytes of files that were read and written, by process and by file."""
    totals = moved(made, "file", "char", "directory").group_by(keys).agg(pl.col("ret").sum()).collect()
    told(sysdig.chisel(made.with_suffix(".scap"), chisel), totals)


def test_chisels_of_connections_count_what_we_count(made):
    """Bytes by connection: sysdig writes the client first."""
    both = moved(made, "socket").filter(pl.col("fd_name").str.contains("->"))
    ends = pl.col("fd_name").str.replace_all(r"[\[\]]", "").str.split("->").list.sort().list.join("->")
    totals = both.group_by(ends).agg(pl.col("ret").sum()).collect()
    shown = sysdig.chisel(made.with_suffix(".scap"), "topconns")
    tcp = {
        ("->".join(sorted(pair.split("->"))),): size
        for (proto, pair), size in shown.items()
        if proto == "tcp"
    }
    assert len(tcp) >= 2
    amounts = {(name,): sysdig.amount(size) for name, size in totals.rows()}
    assert {key: amounts.get(key) for key in tcp} == tcp
