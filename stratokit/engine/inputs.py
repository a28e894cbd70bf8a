"""From what the user named to files: a path, a folder, a pattern, a pipe, or several of these. Loads little.

Captures are read from several places at once, so what comes through a pipe is first kept in a temporary file,
which has no name: however the program ends, nothing is left of it. It takes the place of the pipe among the
open files, so that /dev/stdin, or /dev/fd/63 of a shell's <(...), goes on to name it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

from stratokit.errors import FormatError, UsageError
from stratokit.formats import spool

PathLike: TypeAlias = str | os.PathLike[str]
STANDARD_INPUT = "-"
_HEAD_BYTES = 8
_COPIED_AT_ONCE = 1 << 20


def resolve(source: PathLike | Iterable[PathLike]) -> list[Path]:
    """The files that a path, a folder, a pattern or a list of these names, in order of their names."""
    if not isinstance(source, str | os.PathLike):
        found = [path for part in source for path in resolve(part)]
        if not found:
            raise UsageError("no input was named")
        return list(dict.fromkeys(found))
    path = seekable(Path(source))
    if path.is_dir():
        return _captures_in(path)
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise FormatError(f"no file matches {path}")
    return files


def seekable(path: Path) -> Path:
    """The file itself, or, for `-` and pipes, one with what came out of it, which goes with the program.

    Ctrl-C reaches the program that writes into the pipe too: what it still wrote is read, a second one ends.

    Raises:
        FormatError: there is no room for it.
    """
    if str(path) == STANDARD_INPUT:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(
                "standard input is a terminal: pipe a capture into it, as tcpdump -w - writes one"
            )
        path = Path("/dev/stdin")
    try:
        mode = path.stat().st_mode
    except OSError:
        return path  # who reads it says what is wrong
    return _kept(path) if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else path


def _kept(pipe: Path) -> Path:
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it stays open
        number = _descriptor(pipe)
        opened = pipe.open("rb", buffering=0) if number is None else os.fdopen(os.dup(number), "rb", 0)
        with opened as source, _one_interrupt():
            while data := source.read(_COPIED_AT_ONCE):
                while data := data[file.write(data) :]:
                    pass
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"cannot keep what {pipe} brings in a temporary file: {reason}") from error
    _open.append(file)
    if number is None:
        return Path(f"/dev/fd/{file.fileno()}")
    os.dup2(file.fileno(), number)
    return pipe


_open: list[IO[bytes]] = []


def _descriptor(path: Path) -> int | None:
    """Of which open file this is a name."""
    found = re.fullmatch(r"/dev/stdin|/(?:dev|proc/self)/fd/(\d+)", str(path))
    return None if found is None else int(found[1] or 0)


@contextlib.contextmanager
def _one_interrupt() -> Iterator[None]:
    """The first Ctrl-C is left to who writes; raised here it could lose what was just read."""
    before = signal.getsignal(signal.SIGINT)
    is_ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if is_ours:
        signal.signal(signal.SIGINT, lambda *_: signal.signal(signal.SIGINT, before))
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, before)


def _captures_in(folder: Path) -> list[Path]:
    """Files of a folder that are captures by their content; others may lie beside them."""
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        found = [file for file in files if _is_capture(file)]
    except OSError as error:
        raise FormatError(f"cannot read {folder}: {error.strerror}") from error
    if not found:
        raise FormatError(f"there is no capture file in {folder}")
    return found


def _is_capture(file: Path) -> bool:
    from stratokit.formats import registry
    from stratokit.formats.source import read_head

    form = registry.by_head(read_head(file, registry.HEAD_BYTES), os.fspath(file))
    return form is not None and form.open_reader is not None


def is_spool(path: Path) -> bool:
    """Whether the file is what a recorder writes while it runs."""
    try:
        with path.open("rb") as file:
            return spool.sniff(file.read(_HEAD_BYTES))
    except OSError:
        return False
