"""Output files that appear complete or not at all: written beside their final name and renamed at the end."""

from __future__ import annotations

import abc
import contextlib
import importlib.metadata
import os
from pathlib import Path
from typing import TYPE_CHECKING

from stratokit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self


def tool_version() -> str:
    """Version of the installed stratokit, for the files it writes."""
    try:
        return importlib.metadata.version("stratokit")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class OutputFile:
    """Where a writer may write until `commit` gives the file its name; `discard` leaves nothing behind.

    A target that is no regular file (a pipe, /dev/null) has no name to give and is written directly.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.direct = self.path.exists() and not self.path.is_file()
        if self.direct:
            working_path = self.path
        else:
            # Same directory, so that the rename cannot cross file systems; a name of its own for each
            # process.
            working_path = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._working_path = working_path
        with self.errors():
            self.file = open(working_path, "wb")  # noqa: SIM115

    def commit(self) -> None:
        """Make the file durable, then visible under its final name."""
        with self.errors():
            self.file.flush()
            if not self.direct:
                os.fsync(self.file.fileno())
            self.file.close()
            if not self.direct:
                os.replace(self._working_path, self.path)

    def discard(self) -> None:
        """Remove what was written so far."""
        if not self.direct:
            with contextlib.suppress(OSError):
                self._working_path.unlink()
        with contextlib.suppress(OSError):
            self.file.close()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn failures of the file system into a sentence for the user."""
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise FormatError(f"cannot write {self.path}: {reason}") from error


class FileWriter(abc.ABC):
    """What all writers share: `close` finishes the file, an exception in a `with` block removes it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._output = OutputFile(path)

    @abc.abstractmethod
    def _finish(self) -> None:
        """Write everything that is still to be written."""

    def close(self) -> None:
        """Finish the file and give it its name; when that fails, nothing stays behind."""
        try:
            with self._output.errors():
                self._finish()
            self._output.commit()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Give up: nothing stays behind."""
        self._output.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
