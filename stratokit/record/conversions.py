"""Segments become captures while the recording goes on: in a process of its own, one after another.

The process runs at low priority and ends when nothing is left to do, because its libraries take 200 MB.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from stratokit.record.segments import Segment

NICE = 10
IDLE_S = 5.0
JOBS_MOST = 64  # of one process, whose memory would grow
# More threads would take processors from the host's own work.
_ENVIRONMENT = {"POLARS_MAX_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """Segments that become the file `output`, from `since_ns` on where that is given."""

    segments: tuple[Segment, ...]
    output: pathlib.Path
    since_ns: int | None = None


class Conversions:
    """The queue. `done` is called for each job with an empty text or what went wrong."""

    def __init__(
        self,
        done: Callable[[Job, str], None],
        own_child: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`own_child`: told True right before a process is started that shall not be recorded, False when it
        has ended.
        """
        self._done = done
        self._own_child = own_child
        self._jobs: collections.deque[Job] = collections.deque()
        self._current: Job | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._ending: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._idle_since = 0.0
        self._answer = b""

    def __len__(self) -> int:
        """Jobs that are not done."""
        return len(self._jobs) + (self._current is not None)

    def add(self, job: Job) -> None:
        """Convert this after the others."""
        for segment in job.segments:
            segment.pins += 1
        self._jobs.append(job)

    def give_up_oldest(self) -> Job | None:
        """Take the first job that was not begun out of the queue."""
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        for segment in job.segments:
            segment.pins -= 1
        return job

    def poll(self) -> None:
        """Take note of what is done and begin the next; never waits."""
        if self._ending is not None and not self._reaped(self._ending, os.WNOHANG):
            return
        if self._worker is not None and self._current is not None:
            self._read(self._worker)
        if self._current is None and self._jobs and self._ending is None:
            # Segments in memory are inherited: after privileges were dropped no other process may look here.
            memory = [segment.memory.fileno() for segment in self._jobs[0].segments if segment.memory]
            if self._worker is not None and memory:
                self._end()
                return
            if self._worker is None:
                self._start(memory)
            self._give(self._jobs.popleft())
        elif self._worker is not None and self._current is None:
            idle = time.monotonic() - self._idle_since > IDLE_S
            if idle:
                self._end()

    def wait(self) -> None:
        """Until everything is done."""
        while len(self):
            self.poll()
            if len(self):
                time.sleep(0.02)
        self._end()
        if self._ending is not None:
            self._reaped(self._ending, 0)

    def _end(self) -> None:
        """Let the process end."""
        if self._worker is None:
            return
        self._ending, self._worker = self._worker, None
        assert self._ending.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._ending.stdin.close()

    def _reaped(self, worker: subprocess.Popen[bytes], how: int) -> bool:
        """Whether it has ended; with `how` 0 it is waited for."""
        if os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT | how) is None:
            return False
        self._own_child(False)  # while nobody else can have its number
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()
        self._ending = None
        return True

    def _start(self, inherited: list[int]) -> None:
        self._own_child(True)
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "stratokit.cli.convert_jobs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ENVIRONMENT,
            pass_fds=inherited,
            start_new_session=True,  # Ctrl-C is for the recorder
        )
        os.setpriority(os.PRIO_PROCESS, self._worker.pid, NICE)
        assert self._worker.stdout is not None
        os.set_blocking(self._worker.stdout.fileno(), False)
        self._served = 0
        self._answer = b""

    def _give(self, job: Job) -> None:
        assert self._worker is not None
        assert self._worker.stdin is not None
        self._current = job
        self._served += 1
        line: dict[str, Any] = {
            "inputs": [str(segment.path) for segment in job.segments],
            "output": str(job.output),
            "since_ns": job.since_ns,
        }
        try:
            self._worker.stdin.write(json.dumps(line).encode() + b"\n")
            self._worker.stdin.flush()
        except BrokenPipeError:
            pass  # which the next poll finds out

    def _read(self, worker: subprocess.Popen[bytes]) -> None:
        assert worker.stdout is not None
        try:
            got = os.read(worker.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        self._answer += got
        if got and not self._answer.endswith(b"\n"):
            return
        failed = json.loads(self._answer)["error"] if self._answer else "the converting process was ended"
        self._answer = b""
        if not got or self._served >= JOBS_MOST:
            self._end()
        job, self._current = self._current, None
        self._idle_since = time.monotonic()
        assert job is not None
        for segment in job.segments:
            segment.pins -= 1
        self._done(job, failed)
