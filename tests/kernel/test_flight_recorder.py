"""`record --keep`: what a trigger makes of the window, on disk and in memory, and what a kill leaves."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import polars as pl
import pytest
from recording import STRATOKIT

import stratokit as sk
from stratokit.record.control import ask, folder

pytestmark = pytest.mark.kernel

MARK = "import os; fd = os.open('/dev/null', os.O_WRONLY); os.write(fd, b'{}')"


def mark(text: str) -> int:
    """A process that writes `text` and ends; its number."""
    with subprocess.Popen([sys.executable, "-c", MARK.format(text)]) as process:
        pass
    return process.pid


class Flight:
    """A flight recorder that runs."""

    def __init__(self, folder, *options):
        self.folder = folder
        self.log = folder / "log"
        calls = "network,descriptor,file,process,clock_nanosleep"
        command = [*STRATOKIT, "record", "-o", folder / "f.parquet", "--no-packets", "--syscalls", calls]
        command += map(str, options)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self.until("holding what happens")

    def until(self, text: str, times: int = 1) -> None:
        end = time.monotonic() + 60
        while len(re.findall(text, self.log.read_text())) < times:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def captures(self) -> list:
        return sorted(self.folder.glob("f-*.parquet"))


@contextlib.contextmanager
def flight(folder, *options):
    recorder = Flight(folder, *options)
    try:
        yield recorder
    finally:
        if recorder.process.poll() is None:
            recorder.process.send_signal(signal.SIGINT)
            recorder.process.wait(60)
    assert recorder.process.returncode == 0, recorder.log.read_text()


def trigger(*arguments):
    return subprocess.run([*STRATOKIT, "trigger", *arguments], capture_output=True, text=True, check=False)


def marks(path) -> dict[str, tuple]:
    """What `mark` wrote: text -> (pid, name and start of the process)."""
    calls = sk.open(path).rows("syscall").filter(pl.col("syscall") == "write").collect()
    calls = calls.filter(pl.col("data").bin.starts_with(b"mark-"))
    return {row["data"].decode(): row for row in calls.iter_rows(named=True)}


def test_triggers_write_the_time_around_them(tmp_path):
    with flight(tmp_path, "--keep", "32s", "--after", "3s") as recorder:
        before = mark("mark-before")
        time.sleep(4.2)  # into the next segment
        hanging = subprocess.Popen(["sleep", "60"])
        pid = str(recorder.process.pid)
        about = json.loads(trigger("--list", "--json").stdout.splitlines()[0])
        assert about["pid"] == recorder.process.pid
        done = trigger("--pid", pid, "--reason", "checkout is slow")
        assert done.returncode == 0, done.stderr
        first = done.stdout.strip()
        mark("mark-between")
        answer = ask(folder() / f"{pid}.sock", {"do": "trigger", "reason": "again"})
        assert answer["output"] == first  # joins the one that waits
        mark("mark-after")
        recorder.until("written: ")
        hanging.kill()
        hanging.wait()
        recorder.process.send_signal(signal.SIGUSR1)
        recorder.until("written: ", 2)
        missing = trigger("--pid", "1")
        assert missing.returncode == 2
        assert f"1 is no flight recorder; there is {pid}" in missing.stderr
    assert not list(tmp_path.glob("*.spool"))
    nobody = trigger()
    assert nobody.returncode == 1
    assert "no flight recorder runs here" in nobody.stderr

    one, two = recorder.captures()
    assert str(one) == first
    found = marks(one)
    assert set(found) == {"mark-before", "mark-between", "mark-after"}
    assert set(marks(two)) == set(found)
    # A process that has ended before the trigger has its name and its end.
    processes = sk.open(one).rows("process").filter(pl.col("pid") == before).collect()
    assert processes["event"].to_list()[-1] == "exit"
    assert "mark-before" in processes.filter(event="exec")["cmdline"][0]
    assert found["mark-before"]["process_start"] is not None
    # What hung when the window ended is seen.
    waits = sk.open(one).rows("syscall").filter(pl.col("pid") == hanging.pid, pl.col("unfinished")).collect()
    assert waits["syscall"].to_list() == ["clock_nanosleep"]
    ended = sk.open(two).rows("syscall").filter(pl.col("pid") == hanging.pid).collect()
    assert not ended["unfinished"].fill_null(False).any()
    assert [t["reason"] for t in sk.open(one).info()["triggers"]] == ["checkout is slow", "again"]
    assert [t["by"] for t in sk.open(two).info()["triggers"]] == ["stratokit trigger"] * 2 + ["SIGUSR1"]
    shown = subprocess.run([*STRATOKIT, "info", one], capture_output=True, text=True, check=True).stdout
    assert re.search(r"trigger .* UTC by stratokit trigger: checkout is slow", shown)
    losses = sk.open(one).rows("loss").collect()["counter"]
    assert not set(losses) & {"event_missing", "segment_missing", "syscall_no_space"}


def test_expressions_trigger(tmp_path):
    """Each kind of events, one recorder with its window in memory: every expression makes one file."""
    nap = shutil.copy(shutil.which("sleep"), tmp_path / "stratonap")  # others of this host sleep too
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = f"socket.old_state == SYN_SENT and socket.new_state == CLOSE and tcp.dstport == {port}"
    slow = "proc.name == stratonap and evt.type == clock_nanosleep and evt.latency > 300ms"
    often = "rate(evt.type == chdir and evt.failed == true) > 20/s"
    failed = "proc.exit_code == 1 and proc.name == stratonap"
    options = [word for text in (refused, slow, often, failed, "exit") for word in ("--trigger", text)]
    options += ["--keep", "30s", "--after", "0", "--before", "1s", "--keep-in", "memory"]
    with flight(tmp_path, *options) as recorder:
        assert not list(tmp_path.glob("*.spool"))
        subprocess.run([nap, "0.01"], check=True)
        chdirs = "import os\nfor i in range({}):\n try: os.chdir('/nowhere')\n except OSError: pass"
        subprocess.run([sys.executable, "-c", chdirs.format(15)], check=True)
        time.sleep(1)
        assert "triggered" not in recorder.log.read_text()
        with socket.socket() as client, contextlib.suppress(ConnectionRefusedError):
            client.connect(("127.0.0.1", port))
        recorder.until("written: ", 1)
        subprocess.run([nap, "0.4"], check=True)
        recorder.until("written: ", 2)
        subprocess.run([sys.executable, "-c", chdirs.format(30)], check=True)
        recorder.until("written: ", 3)
        subprocess.run([nap, "nonsense"], check=False, stderr=subprocess.DEVNULL)
        recorder.until("written: ", 4)
    asked = [sk.open(path).info()["triggers"][-1] for path in recorder.captures()]
    assert [(row["by"], row["reason"]) for row in asked] == [
        *(("expression", text) for text in (refused, slow, often, failed)),
        ("exit", "interrupted"),
    ]
    hang = sk.open(recorder.captures()[1])
    assert hang.where(slow).table("syscalls").collect().height == 1
    span = hang.info()
    assert span["duration_ns"] < 15_000_000_000  # a second, and on a busy machine to the next segment


def test_a_killed_flight_recorder_leaves_its_window(tmp_path):
    recorder = Flight(tmp_path, "--keep", "16s", "--keep-size", "1G")
    mark("mark-one")
    time.sleep(4.5)  # into a third segment
    mark("mark-two")
    time.sleep(0.1)
    recorder.process.kill()
    recorder.process.wait()
    left = sorted(tmp_path.glob("f-*.spool"))
    assert len(left) >= 2
    out = tmp_path / "saved.parquet"
    done = subprocess.run([*STRATOKIT, "convert", *left, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(marks(out)) == {"mark-one", "mark-two"}
    assert "did not finish" in done.stderr
    # Any of them alone is a capture too.
    alone = tmp_path / "alone.parquet"
    subprocess.run([*STRATOKIT, "convert", left[1], alone], check=True)
    assert sk.open(alone).rows("process").filter(pl.col("pid") == os.getpid()).collect().height == 1
    # Without the middle the gap is told.
    if len(left) > 2:
        gap = subprocess.run(
            [*STRATOKIT, "convert", left[0], left[2], "--force", out],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "segments between the first and the last" in gap.stderr
