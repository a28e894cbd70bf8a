"""However a recording is ended or held up, it ends cleanly and says what it lost."""

import signal
import subprocess
import time

import polars as pl
import pytest
from recording import STRATOKIT, UNLIMITED, recording
from workloads import files

from stratokit.formats import spool

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay_s", [0.5, 0.9, 1.3])
def test_a_signal_before_the_recording_began(tmp_path, number, delay_s):
    """While the kernel programs are being compiled, or a little before or after."""
    with subprocess.Popen(
        [*STRATOKIT, "record", "-o", tmp_path / "a.parquet"], stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(delay_s)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert "Traceback" not in said
    left = [path.name for path in tmp_path.iterdir()]
    if process.returncode == 0:
        assert left == ["a.parquet"]
    else:
        assert left == []
        if process.returncode == 1:
            assert said in (
                "stratokit: interrupted before the recording began; nothing was recorded\n",
                "stratokit: terminated before the recording began; nothing was recorded\n",
                "Aborted.\n",
            )
        else:
            assert process.returncode in (130, -number)  # Python itself was still starting


def test_it_says_that_it_began(tmp_path):
    """One line on stderr, so that a script or an operator without a terminal knows when to start the work."""
    with subprocess.Popen(
        [*STRATOKIT, "record", *UNLIMITED, "-o", tmp_path / "a.parquet"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "recording until Ctrl-C\n"
        folder = tmp_path / "work"
        folder.mkdir()
        did = files.work_on_files(folder)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    rows = pl.read_parquet(tmp_path / "a.parquet").filter(pl.col("pid") == did.pid, syscall="openat")
    assert set(did.opened) <= set(rows["path"])


def write_bytes(count: int) -> int:
    """`count` writes of one byte by dd; its pid."""
    with subprocess.Popen(
        ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"]
    ) as work:
        return work.pid


def counted(path, *names: str) -> list[int]:
    """Counters as the recorder last noted them."""
    chunks = spool.SpoolReader(path).chunks()
    samples = [chunk.json()["totals"] for chunk in chunks if chunk.type == spool.COUNTERS]
    return [samples[-1].get(name, 0) for name in names]


@pytest.mark.parametrize(("buffer", "lossy"), [("256K", True), ("64M", False)])
def test_a_recorder_that_stands_still(tmp_path, buffer, lossy):
    """What comes while it is stopped and does not fit is counted; what comes after is whole again."""
    count = 20_011
    options = ("--buffer", buffer, "--syscalls", "write", "--no-packets", "--no-sockets")
    with recording(tmp_path / "a.parquet", *options) as made:
        before = write_bytes(count // 100)
        time.sleep(0.2)
        made.process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        while_stopped = write_bytes(count)
        time.sleep(2)
        made.process.send_signal(signal.SIGCONT)
        end = time.monotonic() + 60
        while sum(counted(made.spool, "recorded_syscall", "syscall_no_space")) < count:
            assert time.monotonic() < end
            time.sleep(0.1)
        after = write_bytes(count // 100)
    calls = made.rows("syscall")
    rows = {pid: calls.filter(pl.col("pid") == pid).height for pid in (before, while_stopped, after)}
    assert (rows[before], rows[after]) == (count // 100, count // 100)
    losses = made.losses()
    assert (losses.get("syscall_no_space", 0) > 0) == lossy
    # Others write too, and what they lost is counted with it.
    assert count - rows[while_stopped] <= losses.get("syscall_no_space", 0)
    if lossy:
        # The loss stands where it happened: after the first program and before the last.
        at = made.rows("loss").filter(counter="syscall_no_space")
        first, last = (calls.filter(pl.col("pid") == pid)["ts"] for pid in (before, after))
        assert at["ts"].min() > first.max()
        assert at["ts"].max() < last.min()


def test_two_recorders_at_once(tmp_path):
    """Each has everything once, and the other as any program."""
    folder = tmp_path / "work"
    folder.mkdir()
    with (
        recording(tmp_path / "a.parquet") as first,
        recording(tmp_path / "b.parquet") as second,
    ):
        did = files.work_on_files(folder)
    for made in (first, second):
        calls = made.rows("syscall").filter(pl.col("pid") == did.pid, syscall="openat")
        assert calls.filter(pl.col("path").is_in(did.missing))["path"].to_list() == did.missing
        assert not made.losses().get("syscall_no_space")
        assert made.rows("syscall").filter(pl.col("pid") == made.process.pid).is_empty()
    other = first.rows("syscall").filter(pl.col("pid") == second.process.pid)
    assert "pwrite64" in other["syscall"]


def test_the_same_name_twice_is_one_sentence(tmp_path):
    with recording(tmp_path / "a.parquet"):
        done = subprocess.run(
            [*STRATOKIT, "record", "-o", tmp_path / "a.parquet"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "is being written by another recording" in done.stderr
