"""The first use after installation, when kernels are compiled: the user is told, two processors share it.

numba compiles one function at a time. While this process compiles what reads packets and follows TCP, others
compile the kernels of the application protocols, by reading a small capture; each finds what the others did
in numba's cache.
"""

from __future__ import annotations

import atexit
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stratokit import kernels
from stratokit.engine.in_order import processors

_PACKAGE = Path(__file__).parents[1]
# In an installed stratokit, or in the repository.
_SAMPLES = (_PACKAGE / "_samples" / "mixed.parquet", _PACKAGE.parent / "sample_captures" / "mixed.parquet")
_SHARED = "stratokit.protocols"
# Kernels of DNS take about as long to compile as those of all other protocols.
_ALONE = "dns"
# Compiling all of them takes less; whatever keeps the other processes busy longer is done here.
_PATIENCE_S = 60


class _Compilation:
    """Hears of kernels that are compiled: `tell` is called at the first one that is not in the cache."""

    def __init__(self, tell: Callable[[], None], protocols: bool) -> None:
        self._tell: Callable[[], None] | None = tell
        self._protocols = protocols
        self._others: list[subprocess.Popen[bytes]] = []

    def __call__(self, function: Any) -> None:
        """numba begins to compile a function."""
        if self._tell is not None:
            self._tell()
            self._tell = None
            if self._protocols and processors() > 1:
                self._others = [*_started(True), *_started(False)]
        # What this function calls is in the cache when the other processes are done.
        if self._others and function.__module__.startswith(_SHARED):
            for other in self._others:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    other.wait(_PATIENCE_S)
            self._others = []


def _started(alone: bool) -> list[subprocess.Popen[bytes]]:
    sample = next((path for path in _SAMPLES if path.exists()), None)
    if sample is None:
        return []
    code = f"from {__name__} import compile_protocols; compile_protocols({str(sample)!r}, {alone})"
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return []
    atexit.register(_end, process)
    return [process]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def compile_protocols(sample: str, alone: bool) -> None:
    """Read the table of one protocol of a capture, or those of all others."""
    from stratokit.engine.capture import Capture
    from stratokit.protocols.registry import protocols

    capture = Capture.open(sample)
    for protocol in protocols().values():
        if (protocol.name == _ALONE) == alone:
            capture.table(protocol.table.name).collect()


@contextlib.contextmanager
def first_use(tell: Callable[[], None], protocols: bool) -> Iterator[None]:
    """Call `tell` when a kernel is compiled in here; `protocols`: those of protocols will be needed."""
    listener = _Compilation(tell, protocols)
    kernels.compile_listeners.append(listener)
    try:
        yield
    finally:
        kernels.compile_listeners.remove(listener)
