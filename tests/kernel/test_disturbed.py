"""Recordings that are disturbed: halted, the clock set, a cgroup gone, very many short processes.

STRATOKIT_HALT_S makes the halt longer than in the normal run, as tools/soak.sh does.
"""

import os
import signal
import subprocess
import time
import uuid

import polars as pl
import pytest
import recording as helper
from inside import CGROUPS, PYTHON, cgroup, running
from recording import recording
from workloads import nginx, web
from workloads.common import find_program

import stratokit as sk

pytestmark = pytest.mark.kernel
HALT_S = float(os.environ.get("STRATOKIT_HALT_S", "3"))


def dd(count: int) -> subprocess.Popen:
    return subprocess.Popen(["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"])


@pytest.mark.parametrize(("buffer", "count"), [("64M", 50_021), ("64K", 200_003)])
def test_a_halted_recorder_goes_on_and_counts_what_did_not_fit(tmp_path, buffer, count):
    options = ("--comm", "dd", "--syscalls", "write", "--no-packets", "--no-sockets", "--buffer", buffer)
    with recording(tmp_path / "a.parquet", *options) as made:
        made.process.send_signal(signal.SIGSTOP)
        with dd(count) as work:
            pass
        time.sleep(HALT_S)
        made.process.send_signal(signal.SIGCONT)
        with dd(1009) as after:
            pass
    calls = made.rows("syscall")
    lost = made.losses().get("syscall_no_space", 0)
    assert calls.filter(pl.col("pid").is_in([work.pid, after.pid])).height + lost == count + 1009
    assert (lost > 0) == (buffer == "64K")
    assert not {"event_missing", "event_unreadable", "spool_unfinished"} & made.losses().keys()


# The recorder with a real clock that is set forward by an hour when the file of the first argument appears,
# and back by two when that of the second does. Setting the machine's own would disturb all that runs on it.
SET_CLOCK = """
import os, sys, time
forward, back = sys.argv[1:3]
read = time.clock_gettime_ns
def clock_gettime_ns(clock):
    hours = os.path.exists(forward) - 2 * os.path.exists(back)
    return read(clock) + (hours * 3_600_000_000_000 if clock == time.CLOCK_REALTIME else 0)
time.clock_gettime_ns = clock_gettime_ns
sys.argv[1:] = sys.argv[3:]
from stratokit.cli.app import main
main()
"""


@pytest.mark.skipif(find_program("nginx") is None, reason="nginx is missing")
def test_a_clock_that_is_set_by_an_hour(tmp_path, monkeypatch):
    forward, back = tmp_path / "forward", tmp_path / "back"
    monkeypatch.setattr(helper, "STRATOKIT", (helper.STRATOKIT[0], "-c", SET_CLOCK, str(forward), str(back)))
    began_ns = time.time_ns()
    with nginx.nginx() as site, recording(tmp_path / "a.parquet", "--syscalls", "network") as made:
        first = web.browse(site)
        forward.touch()
        time.sleep(1.3)
        second = web.browse(site)
        back.touch()
        time.sleep(1.3)
        third = web.browse(site)
    assert made.losses()["clock_set"] == 2
    assert not [name for name in made.losses() if name.startswith(("event_", "chunk_", "spool_"))]
    capture = sk.open(made.path)
    rows = capture.table("http").collect()
    sent = [*first, *second, *third]
    assert sorted(rows.select("method", "path", "status").rows()) == sorted(
        (r.method, r.path, r.status) for r in sent
    )
    hours = (rows["ts_request"].dt.epoch("ns") - began_ns) // 3_600_000_000_000
    assert dict(hours.value_counts().iter_rows()) == {0: len(first), 1: len(second), -1: len(third)}
    # No request was under way when the clock was set: durations are those of a clock that runs.
    assert rows["latency_ns"].is_between(0, 10_000_000_000).all()
    tcp = capture.table("tcp").collect()
    assert tcp["handshake_rtt_ns"].drop_nulls().is_between(0, 10_000_000_000).all()
    assert capture.report()


def test_a_cgroup_that_goes_while_it_is_recorded(tmp_path):
    """Another one of the scope stays; the recording goes on and ends in order."""
    names = [f"stratokit-{uuid.uuid4()}" for _ in range(2)]
    touch = "import os, sys\nfor line in sys.stdin: os.close(os.open('/dev/null', 0)); print(flush=True)"
    with cgroup(names[0]) as goes, cgroup(names[1]) as stays:
        options = [word for name in names for word in ("--cgroup", f"/{name}")]
        with (
            running(PYTHON, "-c", touch, group=stays) as other,
            recording(tmp_path / "a.parquet", *options) as made,
        ):
            with running(PYTHON, "-c", touch, group=goes) as process:
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline()
            end = time.monotonic() + 10
            while (CGROUPS / names[0]).exists() and time.monotonic() < end:
                try:
                    (CGROUPS / names[0]).rmdir()
                except OSError:
                    time.sleep(0.05)
            time.sleep(1.2)
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline()
    opened = made.rows("syscall").filter(path="/dev/null", syscall="openat")
    assert set(opened["pid"]) == {process.pid, other.pid}
    assert not [name for name in made.losses() if name.startswith(("event_", "chunk_", "spool_"))]


def test_ten_thousand_short_processes_a_minute(tmp_path):
    """More in a second than a minute's ten thousand have: each has its program, its name, and its end."""
    count = 1_009
    script = f"i=0; while [ $i -lt {count} ]; do /bin/true short-lived-$i; i=$((i+1)); done"
    with recording(tmp_path / "a.parquet", "--syscalls", "execve,exit_group") as made:
        start = time.monotonic()
        shell = subprocess.run(["sh", "-c", script], check=True)
        rate = count / (time.monotonic() - start)
    assert shell.returncode == 0
    assert rate > 10_000 / 60
    rows = made.rows("process").filter(
        pl.col("cmdline").str.starts_with("/bin/true short-lived-"), event="exec"
    )
    assert rows["cmdline"].n_unique() == rows.height == count
    pids = set(rows["pid"])
    ends = made.rows("process").filter(pl.col("pid").is_in(pids), event="exit")
    assert ends.height >= count
    calls = made.rows("syscall").filter(pl.col("path") == "/bin/true", syscall="execve")
    assert calls.height >= count
    assert not {"process_no_space", "syscall_no_space"} & made.losses().keys()
