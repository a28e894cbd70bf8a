"""The first use after installation, when kernels are compiled: the user is told, two processors share it.

numba compiles one function at a time. So two other processes compile the kernels of the application protocols
beside this one, by reading a small capture. Who needs what another one compiles waits for it (kernel_cache).
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
# Kernels of these take about as long to compile as those of all other protocols.
_HALF = ("dns", "tls")


class _Compilation:
    """Hears of kernels that are compiled: `tell` is called at the first one that is not in the cache."""

    def __init__(self, tell: Callable[[], None], protocols: bool) -> None:
        self._tell: Callable[[], None] | None = tell
        self._protocols = protocols

    def __call__(self, _: Any) -> None:
        """numba begins to compile a function."""
        if self._tell is not None:
            self._tell()
            self._tell = None
            if self._protocols and processors() > 1:
                for first_half in (True, False):
                    _start(first_half)


def _start(first_half: bool) -> None:
    sample = next((path for path in _SAMPLES if path.exists()), None)
    if sample is None:
        return
    code = f"from {__name__} import compile_protocols; compile_protocols({str(sample)!r}, {first_half})"
    with contextlib.suppress(OSError):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def compile_protocols(sample: str, first_half: bool) -> None:
    """Read the tables of some protocols of a capture, then those of all."""
    from stratokit.engine.capture import Capture
    from stratokit.protocols.registry import protocols

    tables = [protocol.table.name for protocol in protocols().values()]
    rest = [name for name in tables if name not in _HALF]
    for names in (*([name] for name in _HALF if first_half), rest, tables):
        capture = Capture.open(sample)
        capture.keep(names)
        for name in names:
            capture.table(name).collect()


@contextlib.contextmanager
def first_use(tell: Callable[[], None], protocols: bool) -> Iterator[None]:
    """Call `tell` when a kernel is compiled in here; `protocols`: those of protocols will be needed."""
    listener = _Compilation(tell, protocols)
    kernels.compile_listeners.append(listener)
    try:
        yield
    finally:
        kernels.compile_listeners.remove(listener)
