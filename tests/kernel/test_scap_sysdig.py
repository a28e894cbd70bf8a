"""Real programs, recorded by eBPF: sysdig shows of the scap file what our tables say."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from helpers import sysdig
from helpers.sysdig_args import differences
from recording import recording
from workloads import descriptors, nginx

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


@dataclasses.dataclass(frozen=True)
class Made:
    """`shown`: sysdig's rows. `pids`: processes of our own, as others on the machine may be of any kind."""

    path: Path
    scap: Path
    server: descriptors.Serving
    shown: pl.DataFrame
    pids: list[int]

    def rows(self, kind: str) -> pl.DataFrame:
        return Capture.open(self.path).rows(kind).collect()

    def calls(self) -> pl.DataFrame:
        return self.rows("syscall").filter(pl.col("pid").is_in(self.pids))

    def chisel(self, name: str, *arguments: str, only: str = "") -> str:
        """What it prints for our processes; netstat takes no filter."""
        ours = " or ".join(f"proc.pid={pid}" for pid in self.pids)
        command = ["sysdig", "-r", str(self.scap), "-c", name, *arguments]
        command += [f"({ours}) and {only}" if only else ours] * (name != "netstat")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("scap")
    path, out = folder / "a.parquet", folder / "a.scap"
    work = [folder / name for name in ("script", "program")]
    work[0].mkdir()
    with nginx.nginx() as site, descriptors.serving() as server:
        with recording(path, "--syscalls", "all") as record:
            command = ["bash", "-c", SCRIPT, "bash", str(work[0]), str(site.port)]
            subprocess.run(command, check=True, capture_output=True)
            descriptors.use(server, work[1])
            server.talk()
        assert not record.losses().keys() & {"syscall_no_space", "process_no_space"}
    convert.convert_files([path], out)
    return Made(path, out, server, sysdig.events(out, *sysdig.FIELDS), descendants(path))


def descendants(path: Path) -> list[int]:
    """Those of this process, without the recorder."""
    rows = Capture.open(path).rows("process").select("pid", "parent_pid").drop_nulls().collect()
    pids, found = {os.getpid()}, set[int]()
    while pids := set(rows.filter(pl.col("parent_pid").is_in(list(pids)))["pid"]) - found:
        found |= pids
    return sorted(found)


def test_every_event_is_what_our_tables_say(made):
    both = sysdig.compared(made.rows("syscall"), made.shown).filter(pl.col("pid").is_in(made.pids))
    assert {"openat", "read", "write", "connect", "execve", "clone", "dup2", "rename"} & set(both["syscall"])
    assert both.filter(pl.col("fd_kind") == "file", pl.col("fd_name").is_not_null()).height > 100
    sysdig.equal(both, made.rows("process"), sysdig.served(Capture.open(made.path)))


def test_current_readers_take_it(made):
    sysdig.current_readers_take(made.scap)


@pytest.mark.optional
@pytest.mark.skipif("STRATOKIT_SID" not in os.environ, reason="STRATOKIT_SID names no folder with Debian sid")
def test_current_readers_show_every_event(made):
    """sysdig 0.41: processes, results and names of files; Stratoshark: a line an event."""
    folder = Path(os.environ["STRATOKIT_SID"])
    inside = folder / "stratokit-recorded.scap"
    there = ("chroot", str(folder))
    try:
        inside.write_bytes(made.scap.read_bytes())
        shown = sysdig.events(Path("/", inside.name), *sysdig.FIELDS, program=(*there, "sysdig"))
        command = [*there, "strato", "-r", f"/{inside.name}"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    finally:
        inside.unlink(missing_ok=True)
    both = sysdig.compared(made.rows("syscall"), shown).filter(pl.col("pid").is_in(made.pids))
    for ours, theirs in (("comm", "proc.name"), ("ret", "evt.rawres")):
        same = pl.col(ours).cast(pl.String) == pl.col(theirs).cast(pl.String)
        assert both.filter(~same).is_empty(), ours
    same = both.filter(pl.col("fd").cast(pl.Int64) == pl.col("fd.num"), fd_kind="file")
    files = same.filter(pl.col("fd_name").str.starts_with("/"))
    assert files.height > 100
    assert not [row for row in files.iter_rows(named=True) if row["fd.name"] != sysdig.plain(row["fd_name"])]
    moved = both.filter(pl.col("syscall").is_in(_DATAGRAM_CALLS), pl.col("ret") > 0).drop_nulls(
        ["src_ip", "dst_ip"]
    )
    assert set(moved["syscall"]) == set(_DATAGRAM_CALLS)
    for row in moved.iter_rows(named=True):
        ends = {f"{row[f'{end}_ip']}:{row[f'{end}_port']}" for end in ("src", "dst")}
        assert set(row["fd.name"].split("->")) == ends, row["evt.args"]
    wrong = [line for line in lines if "Malformed" in line or "Dissector bug" in line]
    # Ends of threads that begin again under another name.
    assert len(wrong) == sysdig.current_readers_take(made.scap)
    assert all("procexit" in line for line in wrong)
    assert int(lines[-1].split()[0]) == shown["evt.num"][-1]


_DATAGRAM_CALLS = ("sendto", "recvfrom", "sendmsg", "recvmsg")


def test_arguments_are_those_of_the_calls(made):
    """Of entries too: of exits `equal` has looked at every parameter."""
    both = sysdig.entered(made.calls(), made.shown)
    assert differences(sysdig.with_types(both, 0)) == []
    # Not only that nothing differs: of what is compared there is something.
    opened = both.filter(pl.col("syscall") == "openat", pl.col("arg2") & 0o100 > 0)
    assert opened.filter(pl.col("evt.args").str.contains(r"flags=\d+\(.*O_CREAT")).height == opened.height > 5


def test_both_ends_of_pipes_and_pairs_are_known(made):
    """By number where they are made, and by the pipe's name wherever they are used."""
    pairs = made.calls().filter(pl.col("syscall").is_in(["pipe", "pipe2", "socketpair"]), ret=0).sort("ts")
    assert set(pairs["syscall"]) >= {"pipe2", "socketpair"}
    shown = sysdig.compared(made.calls(), made.shown.filter(pl.col("proc.pid").is_in(made.pids)))
    told = shown.filter(pl.col("fd2").is_not_null()).sort("ts")["evt.args"]
    ends = told.str.extract_groups(r"fd1=(\d+)\(<(?:p|u)>.*\) fd2=(\d+)\(<(?:p|u)>").struct.unnest()
    assert ends.cast(pl.Int32).rows() == pairs.select("fd", "fd2").rows()
    written = made.calls().filter(syscall="write", ret=4, data=b"out\n")
    assert written["fd_name"][0] in set(pairs["fd_name"])


def test_both_ends_of_datagrams_are_known(made):
    """Without an event that tells them, from packets and from connect."""
    rows = made.calls().filter(syscall="sendto", fd_kind="socket", ret=2, comm="python")
    assert rows["fd_name"].str.contains(rf"^127.0.0.1:\d+->127.0.0.1:{made.server.udp}$").sum() == 1
    bound = made.calls().filter(syscall="bind", dst_ip="127.0.0.1", dst_port=0).sort("ts")
    assert bound.height == 2  # of datagrams and of a stream
    assert bound["fd_name"].str.contains(r"^127.0.0.1:\d+$").all()
    told = made.shown.filter(pl.col("evt.dir") == "<", pl.col("evt.type") == "bind")["evt.args"].to_list()
    assert {f"res=0 addr={name}" for name in bound["fd_name"]} <= {text.strip() for text in told}


def test_netstat_shows_connections_and_listeners_that_are_older(made):
    """As ss does: also of a listener that made no call."""
    server = made.server
    lines = [re.split(r"\s+", line)[:4] for line in made.chisel("netstat").splitlines()]
    kept = ["tcp", f"127.0.0.1:{server.quiet}", f"127.0.0.1:{server.quiet_client}", "ESTABLISHED"]
    assert lines.count(kept) == 2
    for address in (f"127.0.0.1:{server.tcp}", f"::1:{server.tcp}", f"127.0.0.1:{server.quiet}"):
        assert ["tcp", address, "0.0.0.0:*", "LISTEN"] in lines


_IO = (
    "read", "write", "pread64", "pwrite64", "readv", "writev", "sendto", "recvfrom", "sendmsg", "recvmsg",
    "copy_file_range",
)  # fmt: skip


def moved(made: Made, *kinds: str) -> pl.DataFrame:
    """Calls that moved bytes."""
    rows = made.calls()
    return rows.filter(pl.col("fd_kind").is_in(kinds), pl.col("syscall").is_in(_IO), pl.col("ret") > 0)


def told(made: Made, chisel: str, ours: pl.DataFrame, write: Callable[[int], str] = sysdig.amount) -> None:
    """What a chisel shows (its largest) are our amounts; last column of `ours`."""
    shown = sysdig.amounts(made.chisel(chisel))
    shown.pop((sysdig.UNKNOWN,), None)
    assert len(shown) > 3
    amounts = {tuple(str(cell) for cell in key): write(size) for *key, size in ours.rows()}
    assert {key: amounts.get(key) for key in shown} == shown


@pytest.mark.parametrize(
    ("chisel", "keys", "kinds"),
    [
        ("topprocs_file", ["comm", "pid"], ["file", "char", "directory"]),
        ("topfiles_bytes", ["fd_name"], ["file", "char", "directory"]),
        ("topprocs_net", ["comm", "pid"], ["socket"]),
    ],
)
def test_chisels_of_bytes_count_what_we_count(made, chisel, keys, kinds):
    """Bytes of files that were read and written, by process and by file, and those of sockets."""
    rows = moved(made, *kinds)
    if kinds == ["socket"]:
        rows = rows.filter(pl.col("src_ip").is_not_null() | pl.col("dst_ip").is_not_null())
    told(made, chisel, rows.group_by(keys).agg(pl.col("ret").sum()))


def test_chisels_by_kind_count_what_we_count(made):
    """Bytes by kind of descriptor."""
    rows = moved(made, "file", "char", "directory", "pipe").with_columns(
        pl.col("fd_kind").replace({"char": "file"})
    )
    shown = sysdig.amounts(made.chisel("fdbytes_by", "fd.type"))
    totals = dict(rows.group_by("fd_kind").agg(pl.col("ret").sum()).rows())
    assert shown[("pipe",)] == sysdig.amount(totals["pipe"])
    assert shown[("file",)] == sysdig.amount(totals["file"])


def test_chisels_of_connections_count_what_we_count(made):
    """Bytes by connection: sysdig writes the client first."""
    both = moved(made, "socket").filter(pl.col("fd_name").str.contains("->"))
    served = pl.col("src_port").is_in(list(sysdig.served(Capture.open(made.path))))
    ends = pl.col("fd_name").str.replace_all(r"[\[\]]", "").str.split("->")
    ordered = pl.when(served).then(ends.list.reverse()).otherwise(ends).list.join("->")
    totals = both.group_by(ordered).agg(pl.col("ret").sum())
    shown = sysdig.amounts(made.chisel("topconns"))
    tcp = {(pair,): size for (proto, pair), size in shown.items() if proto == "tcp"}
    assert len(tcp) >= 5
    amounts = {(name,): sysdig.amount(size) for name, size in totals.rows()}
    assert {key: amounts.get(key) for key in tcp} == tcp


def test_chisels_of_calls_count_what_we_count(made):
    """Calls by name."""
    calls = made.calls().filter(pl.col("ret").is_not_null())
    # It counts entries too.
    counts = calls.group_by(sysdig.name()).agg(pl.len() + pl.col("duration_ns").count())
    told(made, "topscalls", counts, write=str)


def test_chisels_of_time_take_what_we_took(made):
    """Time in calls by name; the calls that took longest, and all that took longer than a millisecond."""
    calls = made.calls().filter(pl.col("ret").is_not_null(), pl.col("duration_ns").is_not_null())
    calls = calls.with_columns(name=sysdig.name(), took=pl.col("duration_ns"))
    told(made, "topscalls_time", calls.group_by("name").agg(pl.col("took").sum()), write=sysdig.lapse)
    slow = calls.filter(pl.col("took") > 1_000_000).select("comm", "name", "took").rows()
    lines = made.chisel("scallslower", "1 disable_color").splitlines()[2:]
    shown = [re.split(r"\s{2,}", line.strip())[-3:] for line in lines]
    known = [row for row in shown if row[2] != sysdig.UNKNOWN]
    assert sorted((name.split(" ")[-1], kind, float(time)) for name, time, kind in known) == sorted(
        (comm, kind, took / 1e6) for comm, kind, took in slow if kind in {row[2] for row in known}
    )
    ends = re.findall(r"^\d+\) (\d+)\.(\d{9}) .* \((\d+)\) < ", made.chisel("bottlenecks"), re.MULTILINE)
    longest = calls.sort("took", descending=True).head(len(ends)).select("took", pl.col("tid").cast(int))
    assert [(int(s) * 10**9 + int(ns), int(tid)) for s, ns, tid in ends] == longest.rows()
    assert len(ends) == 10


def test_chisels_of_errors_and_descriptors_count_what_we_count(made):
    """Calls that failed by process, and how many files each program had open."""
    resultless = pl.col("syscall").is_in(["getpeername", "getsockname"])
    failed = sysdig.with_types(made.calls().filter(pl.col("ret") < 0, ~resultless), 1)
    told(made, "topprocs_errors", failed.group_by("comm", "pid").agg(pl.len()), write=str)
    lines = made.chisel("fdcount_by", "proc.name", only="fd.type=file").splitlines()
    counts = {name: int(count) for name, count in (line.split("\t") for line in lines)}
    # A directory is one to it where it was opened with O_DIRECTORY.
    opened = (pl.col("syscall") == "openat") & (pl.col("arg2") & os.O_DIRECTORY == 0)
    files = pl.col("fd_kind").is_in(["file", "char"]) | ((pl.col("fd_kind") == "directory") & opened)
    rows = made.calls().filter(files, pl.col("fd") > 0, pl.col("fd_name").is_not_null())
    ours = rows.select("comm", "fd", "fd_name").unique().group_by("comm").len()
    # Of programs that open all of their files by one name each.
    plain = {name: count for name, count in ours.rows() if name in ("curl", "grep", "ls", "mv", "rm")}
    assert len(plain) == 5
    assert {name: counts[name] for name in plain} == plain
