"""Recorders of other projects, as bench_recorder.py runs them beside ours."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loads import Load, cpu_s

# System calls a second under ptrace are so few that the whole count would take minutes.
PTRACE_SHARE = 0.02


@dataclasses.dataclass
class Cost:
    """What a recorder used while the load ran, and how the load has to run under it."""

    cpu_s: float = 0.0
    events: int = 0
    events_per_s: float = 0.0
    lost: int = 0
    peak_bytes: int = 0
    file_bytes: int = 0
    prefix: tuple[str, ...] = ()  # that the load's program is started by
    share: float = 1.0  # of the operations, where all would take minutes
    reacts: bool = False  # to what it costs, by leaving out something


Recorder = Callable[[Path, Load], contextlib.AbstractContextManager[Cost]]


def peak_bytes(pid: int) -> int:
    """Peak of resident memory. The ring buffer is mapped twice in a row, and counted once here."""
    text = Path(f"/proc/{pid}/status").read_text()
    peak = int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) << 10
    ring, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line[0] in "0123456789abcdef":
            inside = "bpf-map" in line
        elif inside and line.startswith("Rss:"):
            ring += int(line.split()[1]) << 10
    return peak - ring // 2


@contextlib.contextmanager
def measured(process: subprocess.Popen[Any], cost: Cost) -> Iterator[None]:
    """What a recorder that runs uses while the load does; it is interrupted then."""
    before = cpu_s(process.pid)
    yield
    cost.cpu_s = cpu_s(process.pid) - before
    cost.peak_bytes = peak_bytes(process.pid)
    process.send_signal(signal.SIGINT)


def tcpdump(*options: str) -> Recorder:
    @contextlib.contextmanager
    def run(folder: Path, _: Load) -> Iterator[Cost]:
        path = folder / "bench.pcap"
        cost = Cost()
        command = ["tcpdump", "-i", "lo", "-w", str(path), "-Z", "root", *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            process.stderr.readline()
            time.sleep(0.5)
            with measured(process, cost):
                yield cost
            said = process.communicate()[1]
        numbers = {
            line.split(" ", 1)[1]: int(line.split(" ", 1)[0])
            for line in said.splitlines()
            if line[:1].isdigit()
        }
        cost.events = numbers.get("packets captured", 0)
        cost.lost = numbers.get("packets dropped by kernel", 0)
        cost.file_bytes = path.stat().st_size
        path.unlink()

    return run


@contextlib.contextmanager
def strace(folder: Path, load: Load) -> Iterator[Cost]:
    """Starts the load's program, or is attached to its servers."""
    path = folder / "bench.strace"
    begin = ["strace", "-f", "-q", "-o", str(path)]
    cost = Cost(share=PTRACE_SHARE)
    if not load.pids:
        cost.prefix = tuple(begin)
        yield cost
    else:
        with subprocess.Popen(
            [*begin, *(f"-p{pid}" for pid in load.pids)], stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(1)
            with measured(process, cost):
                yield cost
    cost.events, cost.file_bytes = path.read_bytes().count(b"\n"), path.stat().st_size
    path.unlink()


@contextlib.contextmanager
def perf_trace(folder: Path, _: Load) -> Iterator[Cost]:
    """Of the whole machine, as text."""
    path = folder / "bench.perf"
    cost = Cost(share=0.2)
    with subprocess.Popen(["perf", "trace", "-a", "-o", str(path)], stderr=subprocess.DEVNULL) as process:
        time.sleep(2)
        with measured(process, cost):
            yield cost
    text = path.read_bytes()
    cost.events, cost.file_bytes = text.count(b"\n"), len(text)
    cost.lost = sum(int(n) for n in re.findall(rb"LOST (\d+) events", text))
    path.unlink()


@contextlib.contextmanager
def empty_programs(_: Path, __: Load) -> Iterator[Cost]:
    """What no recorder of all system calls can be cheaper than."""
    command = [sys.executable, str(Path(__file__).with_name("empty_programs.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the programs were not attached"
        yield Cost()
        process.communicate()


SYSDIG = shlex.split(os.environ.get("STRATOKIT_SYSDIG", "sysdig"))


@contextlib.contextmanager
def sysdig(_: Path, __: Load) -> Iterator[Cost]:
    """All events by the modern eBPF probe, to a file in /tmp of its root, which needs /proc and /sys."""
    cost = Cost()
    command = [*SYSDIG, "--modern-bpf", "-v", "-w", "/tmp/bench.scap"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        time.sleep(4)
        if process.poll() is not None:
            sys.exit(f"{shlex.join(command)} ended: {process.communicate()[0].strip()}")
        with measured(process, cost):
            yield cost
        said = process.communicate()[0]
    numbers = {name: int(n) for name, n in re.findall(r"([A-Za-z ]+):\s*(\d+)", said)}
    cost.events = numbers.get("Captured Events", numbers.get("Events", 0))
    cost.lost = numbers.get("Driver Drops", numbers.get("Drops", 0))
    root = Path(SYSDIG[1] if SYSDIG[0] == "chroot" else "/")
    path = root / "tmp/bench.scap"
    cost.file_bytes = path.stat().st_size
    path.unlink()


def _modern_probe() -> bool:
    """Some distributions build sysdig without it, and only its use tells."""
    done = subprocess.run([*SYSDIG, "--modern-bpf", "-n", "1"], capture_output=True, check=False, timeout=60)
    return done.returncode == 0


OTHERS: dict[str, Recorder] = {"empty programs where calls begin and end": empty_programs}
if shutil.which("tcpdump"):
    OTHERS |= {"tcpdump": tcpdump(), "tcpdump -s 256": tcpdump("-s", "256")}
if shutil.which("strace"):
    OTHERS["strace -f"] = strace
if shutil.which("perf") and (
    Path("/sys/kernel/tracing/events").is_dir() or Path("/sys/kernel/debug/tracing").is_dir()
):
    OTHERS["perf trace -a"] = perf_trace
if shutil.which(SYSDIG[0]) and _modern_probe():
    OTHERS["sysdig, modern probe"] = sysdig
