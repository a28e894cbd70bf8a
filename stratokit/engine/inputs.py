"""From what the user named to files: a path, a folder, a pattern, or several of these. Loads little."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from stratokit.errors import FormatError, UsageError
from stratokit.formats import spool

PathLike: TypeAlias = str | os.PathLike[str]
_HEAD_BYTES = 8


def resolve(source: PathLike | Iterable[PathLike]) -> list[Path]:
    """The files that a path, a folder, a pattern or a list of these names, in order of their names."""
    if not isinstance(source, str | os.PathLike):
        found = [path for part in source for path in resolve(part)]
        if not found:
            raise UsageError("no input was named")
        return list(dict.fromkeys(found))
    path = Path(source)
    if path.is_dir():
        return _captures_in(path)
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise FormatError(f"no file matches {path}")
    return files


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
