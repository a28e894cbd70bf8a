"""The first use after installation, when kernels are compiled: the user is told, two processors share it.

numba compiles one function at a time. While this process compiles what reads packets and follows TCP, another
one compiles the kernels of the application protocols, by reading a small capture; each finds what the other
did in numba's cache.
"""

from __future__ import annotations

import atexit
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba.core import event

from stratokit.engine.in_order import processors

_PACKAGE = Path(__file__).parents[1]
# In an installed stratokit, or in the repository.
_SAMPLES = (_PACKAGE / "_samples" / "mixed.parquet", _PACKAGE.parent / "sample_captures" / "mixed.parquet")
_COMPILE_EVENT = "numba:compile"
_SHARED = "stratokit.protocols"
# Compiling all of them takes less; whatever keeps the other process busy longer is done here.
_PATIENCE_S = 60


class _Compilation(event.Listener):
    """Listens to numba: `tell` is called at the first kernel that is not in the cache."""

    def __init__(self, tell: Callable[[], None], protocols: bool) -> None:
        self._tell: Callable[[], None] | None = tell
        self._protocols = protocols
        self._other: subprocess.Popen[bytes] | None = None

    def on_start(self, event: Any) -> None:
        """numba begins to compile a function."""
        if self._tell is not None:
            self._tell()
            self._tell = None
            if self._protocols and processors() > 1:
                self._other = _started()
        # What this function calls is in the cache when the other process is done.
        if self._other is not None and event.data["dispatcher"].py_func.__module__.startswith(_SHARED):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._other.wait(_PATIENCE_S)
            self._other = None

    def on_end(self, event: Any) -> None:
        """It has ended."""


def _started() -> subprocess.Popen[bytes] | None:
    sample = next((path for path in _SAMPLES if path.exists()), None)
    if sample is None:
        return None
    code = f"from {__name__} import compile_protocols; compile_protocols({str(sample)!r})"
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def compile_protocols(sample: str) -> None:
    """Read every protocol's table of a capture."""
    from stratokit.engine.capture import Capture
    from stratokit.protocols.registry import protocols

    capture = Capture.open(sample)
    for protocol in protocols().values():
        capture.table(protocol.table.name).collect()


@contextlib.contextmanager
def first_use(tell: Callable[[], None], protocols: bool) -> Iterator[None]:
    """Call `tell` when a kernel is compiled in here; `protocols`: those of protocols will be needed."""
    listener = _Compilation(tell, protocols)
    event.register(_COMPILE_EVENT, listener)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        event.unregister(_COMPILE_EVENT, listener)  # type: ignore[no-untyped-call]
