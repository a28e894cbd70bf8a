"""Where a verb writes: the terminal, or a file that appears complete or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from stratokit.cli.values import free_output

if TYPE_CHECKING:
    from rich.console import Console

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


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A function to call with (done, total), which draws a bar on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(message: str) -> None:
    """A remark for the person at the terminal: stderr, so that data on stdout stays data."""
    sys.stderr.write(f"{message}\n")
