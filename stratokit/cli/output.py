"""Where a verb writes: the terminal, or a file that appears complete or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from stratokit.cli.values import free_output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from stratokit.engine.capture import Capture

# What is not a terminal has no width; this one shows most tables whole.
_FILE_WIDTH = 160


@contextlib.contextmanager
def binary_output(path: Path | None, force: bool) -> Iterator[IO[bytes]]:
    """stdout, or the file named by -o, which gets its name when nothing went wrong."""
    if path is None:
        yield sys.stdout.buffer
        return
    from stratokit.formats.output import OutputFile

    free_output(path, force)
    output = OutputFile(path)
    try:
        with output.errors():
            yield output.file
        output.commit()
    except BaseException:
        output.discard()
        raise


@contextlib.contextmanager
def text_output(path: Path | None, force: bool) -> Iterator[TextIO]:
    """As `binary_output`, for text."""
    if path is None:
        yield sys.stdout
        return
    with binary_output(path, force) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="\n")
        yield text
        text.flush()
        text.detach()


def console(file: TextIO | None = None) -> Console:
    """A rich console on stdout or `file`: with color and the terminal's width only on a terminal."""
    from rich.console import Console

    file = file or sys.stdout
    if file.isatty():
        return Console(file=file, highlight=False)
    width = os.environ.get("COLUMNS", "")
    return Console(
        file=file, width=int(width) if width.isdigit() else _FILE_WIDTH, color_system=None, highlight=False
    )


_FIRST_USE = "stratokit: first use after installation: compiling, which takes some 20 seconds, once"
# Work that ends sooner needs no bar.
_PATIENCE_S = 0.5


def _is_watched() -> bool:
    return sys.stderr.isatty()


class _Bar:
    """A bar on a terminal with bytes, rate and time left; one pass over a file after the other."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._bar: Progress | None = None

    def update(self, title: str, done: int, total: int) -> None:
        """Draw; nothing stays on the screen when a pass is complete."""
        if done >= total:
            self.stop()
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        elif time.monotonic() - self._begun > _PATIENCE_S:
            self._bar = _started(title, total)

    def stop(self) -> None:
        """Clear it."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _started(title: str, total: int) -> Progress:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    bar = rich.Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(title, total=total)
    bar.start()
    return bar


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A function to call with (done, total) bytes, which draws a bar on a terminal; None elsewhere."""
    if not _is_watched():
        yield None
        return
    bar = _Bar(time.monotonic())
    try:
        yield lambda done, total: bar.update(title, done, total)
    finally:
        bar.stop()


@contextlib.contextmanager
def compiling(protocols: bool = False) -> Iterator[None]:
    """A line says when kernels are compiled in here; `protocols`: those of protocols will be needed."""
    from stratokit.engine.first_use import first_use

    with first_use(lambda: say(_FIRST_USE), protocols):
        yield


@contextlib.contextmanager
def reading(protocols: bool = True, quiet: bool = False) -> Iterator[None]:
    """While files are read in here, a bar on a terminal says how far; see `compiling`. `quiet`: no bar."""
    with compiling(protocols):
        if quiet or not _is_watched():
            yield
            return
        from stratokit.engine.progress import watched

        bar = _Bar(time.monotonic())
        with watched(lambda name, done, total: bar.update(f"reading {name}", done, total)):
            try:
                yield
            finally:
                bar.stop()


def opened(inputs: list[Path], keylog: Path | None = None) -> Capture:
    """The capture in these files; a key log that cannot help is worth a remark, not more."""
    from stratokit.engine.capture import Capture
    from stratokit.streams.memory import share_heap

    share_heap()
    capture = Capture.open(inputs, keylog)
    if keylog is not None and not capture.has_key_log:
        say(f"stratokit: {keylog} holds no secrets of TLS: what is encrypted stays so")
    return capture


def warn_of_damage(capture: Capture) -> None:
    """Say where files that were read by now ended early."""
    for path, damage in capture.damages:
        say(f"stratokit: {path}: {damage.reason} (byte {damage.offset}); what stands before was read")


def say(message: str) -> None:
    """A remark for the person at the terminal: stderr, so that data on stdout stays data."""
    sys.stderr.write(f"{message}\n")
