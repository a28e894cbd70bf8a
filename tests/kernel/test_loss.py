"""Whatever goes wrong while recording: what was recorded stays readable, and what was lost is counted."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from recording import STRATOKIT, UNLIMITED, recording, watches
from workloads import files

from stratokit.engine.convert import convert_files
from stratokit.errors import StratokitError
from stratokit.formats import spool

pytestmark = pytest.mark.kernel


def run(*arguments, **options):
    return subprocess.run(
        [*STRATOKIT, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def dd(count: int) -> subprocess.Popen:
    """`count` reads and writes of one byte, as fast as one processor makes them."""
    return subprocess.Popen(["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"])


def test_loss_in_a_tiny_buffer_is_counted_exactly(tmp_path):
    count = 200_003
    small = ("--buffer", "64K", "--syscalls", "write", "--no-packets")
    with recording(tmp_path / "a.parquet", *small) as made, dd(count) as work:
        pass
    written = made.rows("syscall").filter(pl.col("pid") == work.pid)
    lost = made.losses()["syscall_no_space"]
    assert lost > 0
    everybody = made.rows("syscall").height
    others = everybody - written.height
    # Other programs of the machine write too; what they lost is among the lost.
    assert count <= written.height + lost <= count + others + 1000
    assert "ring buffer was full" in made.errors


def test_no_loss_at_speed(tmp_path):
    count = 500_009
    with recording(tmp_path / "a.parquet", "--syscalls", "read,write", "--no-packets") as made:
        started = time.monotonic()
        with dd(count) as work:
            pass
        rate = 2 * count / (time.monotonic() - started)
    mine = made.rows("syscall").filter(pl.col("pid") == work.pid)
    assert mine.filter(syscall="write").height == count
    assert not made.losses().get("syscall_no_space")
    assert rate > 200_000


@contextlib.contextmanager
def recorder(path, *options):
    """A recorder that watches; unlike `recording` it is ended by the test."""
    with subprocess.Popen(
        [*STRATOKIT, "record", *UNLIMITED, "-o", path, *options], stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 60
        while not watches(path.with_suffix(".spool")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.02)
        yield process


def test_a_killed_recording_keeps_all_but_its_last_second(tmp_path):
    path = tmp_path / "a.parquet"
    folder = tmp_path / "work"
    folder.mkdir()
    with recorder(path) as process:
        did = files.work_on_files(folder)
        time.sleep(1.0)
        process.kill()
    assert not path.exists()
    left = path.with_suffix(".spool")
    done = run("convert", left, path)
    assert done.returncode == 0, done.stderr
    assert "did not finish" in done.stderr
    rows = pl.read_parquet(path)
    mine = rows.filter(pl.col("pid") == did.pid, syscall="openat")
    assert set(did.opened) <= set(mine["path"])
    assert rows.filter(counter="spool_unfinished").height == 1
    # No program stays attached when the recorder is gone: a new recording sees each call once.
    again = tmp_path / "again"
    again.mkdir()
    with recording(tmp_path / "b.parquet") as second:
        did = files.work_on_files(again)
    mine = second.rows("syscall").filter(pl.col("pid") == did.pid, syscall="openat")
    assert mine.filter(pl.col("path").is_in(did.missing)).height == len(did.missing)


# Writes its count and the time once a millisecond.
TICKER = """
import itertools, os, time
fd = os.open("/dev/null", os.O_WRONLY)
for i in itertools.count():
    os.write(fd, b"%d %d" % (i, time.time_ns()))
    time.sleep(0.001)
"""


# What a killed recorder was to do; all of it leaves spools that tell all.
MODES = ((), ("--rotate-time", "1s"), ("--keep", "1m"))


def test_killed_at_any_moment(tmp_path):
    """Random moments; STRATOKIT_KILLS=200 makes a long run. What is kept has no gap, and the end is near."""
    kills = int(os.environ.get("STRATOKIT_KILLS", "5"))
    seen = []
    with subprocess.Popen([sys.executable, "-c", TICKER]) as ticker:
        try:
            for index in range(kills):
                folder = tmp_path / f"{index}"
                folder.mkdir()
                mode = MODES[index % len(MODES)]
                seen.append(_kill_once(folder, mode, ticker.pid, early=index % 5 == 0))
                shutil.rmtree(folder)
        finally:
            ticker.kill()
    recorded = [missing for missing in seen if missing is not None]
    assert len(recorded) >= kills // 2
    print(json.dumps({"kills": kills, "with_rows": len(recorded), "missing_ms": max(recorded, default=0)}))


def _kill_once(folder, mode, ticker, early):
    """How many ms before the kill the last event is that was kept; None when it had not begun to record."""
    with subprocess.Popen(
        [*STRATOKIT, "record", *UNLIMITED, "-o", folder / "a.parquet", "--quiet", *mode],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not early and not any(watches(path) for path in folder.glob("a*.spool")):
            time.sleep(0.02)
        time.sleep(random.uniform(0, 3))
        process.kill()
        killed_ns = time.time_ns()
        # Until the process that converts segments has ended too, which has the same stderr.
        assert "Traceback" not in process.communicate(timeout=60)[1]
    for left in sorted(folder.glob("a*.spool")):
        capture = left.with_suffix(".parquet")
        if not capture.exists():  # else it was killed before it could remove the spool
            # What it had hardly begun to write is refused in words.
            with contextlib.suppress(StratokitError):
                convert_files([left], capture)
    captures = sorted(folder.glob("a*.parquet"))
    if not captures:
        return None
    rows = pl.concat([pl.read_parquet(path) for path in captures], how="diagonal")
    # Two of them when it was killed while the next segment began.
    assert 1 <= rows.filter(counter="spool_unfinished").height <= 1 + bool(mode)
    assert rows.filter(pl.col("counter").is_in(["event_unreadable", "chunk_damaged"])).is_empty()
    ticks = rows.filter(pl.col("pid") == ticker, syscall="write").sort("ts")["data"]
    numbers = [int(tick.split()[0]) for tick in ticks]
    if not numbers:
        return None
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    missing_ns = killed_ns - int(ticks[-1].split()[1])
    assert missing_ns < 1_000_000_000
    return missing_ns // 1_000_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_in_order(tmp_path, number):
    with recorder(tmp_path / "a.parquet") as process:
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    rows = pl.read_parquet(tmp_path / "a.parquet")
    assert "spool_unfinished" not in rows["counter"]
    assert not (tmp_path / "a.spool").exists()


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=False)
    if made.returncode:
        pytest.fail("a tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("size", ["1m", "4m"])
def test_a_full_disk_ends_the_recording_and_keeps_what_was_written(tmp_path, size):
    """With 4 MB the capture still fits on the disk, with 1 MB only the spool does."""
    with small_disk(tmp_path / "disk", size) as disk:
        with recorder(disk / "a.parquet", "--syscalls", "write", "--no-packets") as process:
            with dd(200_003):
                pass
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 1, said
        assert "full" in said
        assert "Traceback" not in said
        (left,) = disk.iterdir()
        kept = shutil.copy(left, tmp_path)
    path = tmp_path / "a.parquet"
    if left.suffix == ".spool":
        reader = spool.SpoolReader(tmp_path / "a.spool")
        kinds = [chunk.type for chunk in reader.chunks()]
        assert kinds.count(spool.EVENTS) > 0
        assert reader.damage.cut_bytes == 0
        assert str(left) in said
        done = run("convert", kept, path)
        assert done.returncode == 0, done.stderr
    rows = pl.read_parquet(path)
    assert rows.filter(syscall="write").height > 1000
    assert rows.filter(counter="disk_full_bytes").height == 1


def test_nothing_is_overwritten_without_force(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"precious")
    done = run("record", "-o", path, "--", "true")
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert path.read_bytes() == b"precious"
    assert run("record", "-o", path, "--force", "--", "true").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--snaplen", "3"),
        ("--io-bytes", "-1"),
        ("--duration", "soon"),
        ("--buffer", "1"),
        ("--syscalls", "opnat"),
        ("--duration", "0s"),
    ],
)
def test_wrong_values_are_usage_errors(tmp_path, arguments):
    done = run("record", "-o", tmp_path / "a.parquet", *arguments, "--", "true")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert arguments[0] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_one_sentence(tmp_path):
    done = run("record", "-o", tmp_path / "missing" / "a.parquet", "--", "true")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_command_that_is_missing_is_one_sentence(tmp_path):
    done = run("record", "-o", tmp_path / "a.parquet", "--", "/no/such/program")
    assert done.returncode == 1
    assert "cannot run /no/such/program" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
