"""Without options a storm of system calls is not slowed for long: calls are left out, and come back."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from recording import STRATOKIT, recording
from workloads import echo

pytestmark = pytest.mark.kernel

# Does what each line says, and says that it has: makes a call that a recording may see begin or end alone.
PUPPET = """
import os, sys, time
for line in sys.stdin:
    word, *rest = line.split()
    if word == "chdir":
        os.chdir(rest[0])
    elif word == "open":
        os.close(os.open(rest[0], os.O_RDONLY))
    print(word, flush=True)
"""


class Puppet(subprocess.Popen):
    def __init__(self):
        super().__init__(
            [sys.executable, "-c", PUPPET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, *words):
        self.stdin.write(" ".join(map(str, words)) + "\n")
        self.stdin.flush()
        assert self.stdout.readline().split() == [words[0]]


@contextlib.contextmanager
def storm(count):
    """Of so many programs that call and do nothing else, each as much a competitor for processors as any."""
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "status=none"]
    processes = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    yield processes[0]
    for process in processes:
        process.kill()
        process.wait()


def calls_per_cpu_s(pid, seconds):
    """Reads of a byte for a second of the process's own time: other work of the machine does not count."""

    def reading():
        done = int(Path(f"/proc/{pid}/io").read_text().split()[1])
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return done, (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    before = reading()
    time.sleep(seconds)
    after = reading()
    return (after[0] - before[0]) / (after[1] - before[1])


def tracepoints(pid):
    found = []
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found += [line.split()[1] for line in path.read_text().splitlines() if "tp_name" in line]
    return {name for name in found if name in ("sys_enter", "sys_exit")}


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


@pytest.fixture(scope="module")
def stormy(tmp_path_factory):
    """A recording in which calls were watched, left out, and watched again; and what was done meanwhile."""
    folder = tmp_path_factory.mktemp("stormy")
    inner = folder / "inner"
    inner.mkdir()
    (inner / "file").touch()
    did = {"inner": inner}
    with contextlib.ExitStack() as work, recording(folder / "a.parquet", limited=True) as made:
        early = work.enter_context(Puppet())
        early.do("open", "/etc/passwd")
        server = work.enter_context(echo.echo_server())
        with storm(4) as load:
            until(lambda: b'"system calls"' in made.spool.read_bytes())
            did["attached"] = tracepoints(made.process.pid)
            did["rate"] = calls_per_cpu_s(load.pid, 0.5)
            late, silent = (work.enter_context(Puppet()) for _ in range(2))
            for puppet in (late, silent):
                puppet.do("open", "/etc/passwd")
            late.do("chdir", inner)
            did["talk"] = echo.converse(server)
        until(lambda: b'"recorded again"' in made.spool.read_bytes())
        until(lambda: tracepoints(made.process.pid))
        time.sleep(0.2)  # until it knows in which folders processes are
        for puppet, name in ((early, "/etc/hosts"), (late, "file")):
            puppet.do("open", name)
            time.sleep(0.1)
            puppet.do("open", "/etc/hostname")
        did |= {"early": early.pid, "late": late.pid, "silent": silent.pid}
        made.stop()
        for puppet in (early, late, silent):
            puppet.stdin.close()
    with storm(1) as load:
        did["alone"] = calls_per_cpu_s(load.pid, 0.5)
    return made, did


def test_the_storm_has_its_speed_again(stormy):
    _, did = stormy
    assert did["attached"] == set()
    assert did["rate"] > 0.8 * did["alone"]


def test_the_file_says_so(stormy):
    made, _ = stormy
    done = subprocess.run(
        [*STRATOKIT, "info", made.path, "--json"], capture_output=True, text=True, check=True
    )
    steps = json.loads(done.stdout)["limits"]
    of_calls = [step for step in steps if step["step"] == "system calls"]
    assert [step["action"] for step in of_calls[:2]] == ["left out", "recorded again"]
    assert {step["because"] for step in steps} == {"load"}
    gap_ms = (of_calls[1]["ts"] - of_calls[0]["ts"]) / 1e6
    assert gap_ms - 200 < made.losses()["syscall_unwatched_ms"]
    rows = made.rows("syscall")
    inside = pl.col("ts").dt.epoch("ns").is_between(of_calls[0]["ts"] + 50_000_000, of_calls[1]["ts"])
    assert rows.filter(inside, ~pl.col("unfinished").fill_null(False)).height == 0
    # And the user was told, at the time and in every report.
    assert "; left out from " in made.errors
    assert "recorded again from " in made.errors
    command = [*STRATOKIT, "report", made.path, "--only", "syscalls,http"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "left out to spare the host: system calls from" in said
    assert said.count("left out to spare") == 1


def test_a_call_whose_beginning_was_not_seen_has_no_duration(stormy):
    made, did = stormy
    calls = made.rows("syscall").sort("ts")
    done = ~pl.col("unfinished").fill_null(False)
    for name in ("early", "late"):
        reads = calls.filter(pl.col("pid") == did[name], done, syscall="read", fd=0)
        # One ends after the time without calls and began in it; the next is the pause of the test.
        assert reads["duration_ns"].null_count() == 1, reads
        after = reads.filter(pl.col("duration_ns").is_not_null())["duration_ns"].to_list()[-1]
        assert 100_000_000 <= after < 2_000_000_000
    waiting = calls.filter(pl.col("unfinished"), syscall="read", fd=0)
    silent = waiting.filter(pl.col("pid") == did["silent"])
    assert silent["duration_ns"].to_list() == [None]
    assert waiting.filter(pl.col("pid") == did["late"])["duration_ns"].null_count() == 0


def test_owners_and_folders_are_known_all_the_same(stormy):
    made, did = stormy
    talk = did["talk"]
    packets = made.rows("packet").filter((pl.col("src_port") == talk.client_port), direction="out")
    assert set(packets["pid"]) == {talk.client_pid}
    answers = made.rows("packet").filter((pl.col("dst_port") == talk.client_port), direction="out")
    assert set(answers.filter(pl.col("payload_len") > 0)["pid"]) == {talk.server_pid}
    opened = made.rows("syscall").filter(pl.col("pid") == did["late"], syscall="openat")["path"].to_list()
    assert opened[-2:] == [f"{did['inner']}/file", "/etc/hostname"]
