"""Record for real, from outside: start `stratokit record`, wait until it watches, stop it, read the
capture.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from stratokit.errors import FormatError
from stratokit.formats import spool

STRATOKIT = (sys.executable, "-m", "stratokit")
# With one of these a recording is not limited by default.
_NAMED = {"--syscalls", "--filter", "--tls", "-i", "--interface", "--", "--max-cpu", "--trigger"}
_NAMED |= {f"--{name}" for name in ("pid", "comm", "uid", "cgroup", "container", "pod", "namespace")}
# A limit that is never reached: nothing is left out however busy the machine is.
UNLIMITED = ("--max-cpu", "100000%")


@dataclasses.dataclass
class Recording:
    """`rows` may be asked once the `with` block has ended."""

    path: Path
    process: subprocess.Popen[str]
    errors: str = ""
    output: str = ""
    stopped: bool = False

    @property
    def spool(self) -> Path:
        return self.path.with_suffix(".spool")

    def stop(self) -> None:
        """End it before the block ends."""
        if self.stopped:
            return
        self.stopped = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=300)
        self.output += output or ""
        self.errors += errors or ""

    def rows(self, kind: str) -> pl.DataFrame:
        return pl.scan_parquet(self.path).filter(pl.col("kind") == kind).collect()

    def losses(self) -> dict[str, int]:
        return dict(self.rows("loss").group_by("counter").agg(pl.col("amount").sum()).iter_rows())


def watches(path: Path) -> bool:
    """True when everything is attached and the snapshots are in the spool."""
    try:
        reader = spool.SpoolReader(path)
    except (FormatError, OSError, ValueError):
        return False
    return any(c.type == spool.TABLE and c.json()["table"] == "cgroups" for c in reader.chunks())


@contextlib.contextmanager
def recording(
    path: Path, *options: str, prefix: tuple[str, ...] = (), limited: bool = False
) -> Iterator[Recording]:
    """Record what happens in the block; `prefix` is a program that starts the recorder, as setpriv.

    `limited`: as by default, where what costs too much is left out.
    """
    options = options if limited or _NAMED.intersection(options) else (*UNLIMITED, *options)
    process = subprocess.Popen(
        [*prefix, *STRATOKIT, "record", "-o", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    result = Recording(path, process)
    try:
        end = time.monotonic() + 60
        while not watches(result.spool):
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                raise AssertionError(f"the recorder did not start: {process.communicate()[1]}")
            time.sleep(0.02)
        yield result
    finally:
        result.stop()
    assert process.returncode == 0, result.errors
