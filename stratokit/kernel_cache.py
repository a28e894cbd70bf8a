"""Where compiled kernels are kept, so that they are compiled once and never outlive their source.

numba looks at the file of a kernel to know whether what it cached still holds, but not at the kernels and
constants that this one takes from other files: after an edit or a checkout it would run old machine code
without a word. So each module's directory is named after the content of the module and of what it imports.
It stands beside the source, or in the user's cache directory, or, for a service account without either, in a
temporary one. It holds code that is executed: nobody but this user may reach into it, or put another one in
its place. What was cut, damaged or renamed is as if it were not there; what cannot be kept is compiled again.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import os
import pickle
import re
import shutil
import stat
import tempfile
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = os.path.dirname(os.path.abspath(__file__))
PREFIX = "compiled"
WEEK_S = 7 * 86400
# So long another process, which may have been stopped, is waited for.
_PATIENCE_S, _LOOK_AGAIN_S = 60, 0.02
_FORMAT = b"stratokit kernel 2\n"
_HEAD_BYTES = len(_FORMAT) + 4
# What a module imports when it is imported itself: indented lines are for type checkers or for later.
_IMPORT = re.compile(
    rb"^(?:from stratokit([\w.]*) import (\([^)]*\)|.*)|import stratokit([\w.]*))", re.MULTILINE
)
# A module below the first reads declarations in one of the others: inside a wheel, or beside the package.
_SCHEMA = os.path.join(PACKAGE, "schema", "")
_DECLARATIONS = (os.path.join(PACKAGE, "_schemas"), os.path.join(os.path.dirname(PACKAGE), "schemas"))


@functools.cache
def parent() -> str:
    """The directory that holds the kernels of all modules: in the user's choice for numba, or one of ours."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    for place in (chosen, os.path.join(PACKAGE, "__pycache__"), _user_cache()):
        if place and (made := _made(os.path.join(place, PREFIX))):
            return made
    try:
        own = os.path.join(tempfile.gettempdir(), f"stratokit-{os.geteuid()}")
        if not os.path.islink(own) and (made := _made(os.path.join(own, PREFIX))):
            return made
        own = tempfile.mkdtemp(prefix="stratokit-")  # for this process alone
    except OSError:  # no room for anything
        return os.path.join(os.devnull, PREFIX)
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return os.path.join(own, PREFIX)


def is_ours(path: str) -> bool:
    """Whether this is a file of the package."""
    return os.path.abspath(path).startswith(os.path.join(PACKAGE, ""))


@functools.cache
def place(path: str) -> str:
    """Directory for the kernels of the module in the file `path`, made; its others go after a week."""
    module = os.path.relpath(path, PACKAGE)[: -len(".py")].replace(os.sep, ".")
    where = os.path.join(parent(), f"{module}-{fingerprint(path)}")
    if not os.path.isdir(where):
        with contextlib.suppress(OSError):
            os.makedirs(where, exist_ok=True)
            for other in os.scandir(parent()):
                ours = other.name.rpartition("-")[0] == module
                if ours and time.time() - other.stat().st_mtime > WEEK_S:
                    shutil.rmtree(other.path, ignore_errors=True)
    return where


@contextlib.contextmanager
def alone(where: str) -> Iterator[None]:
    """Nobody else is in here with the same directory; but who waits too long, or cannot lock it, goes on."""
    place = None
    with contextlib.suppress(OSError):
        place = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    try:
        until = time.monotonic() + _PATIENCE_S
        while place is not None and time.monotonic() < until:
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_AGAIN_S)
            except OSError:
                break
            else:
                break
        yield
    finally:
        if place is not None:
            os.close(place)


def load(path: str) -> Any:
    """What `save` kept under this name; None where there is nothing, or not what it was."""
    try:
        with open(path, "rb") as file:
            is_ours = os.fstat(file.fileno()).st_uid == os.geteuid()
            head, content = file.read(_HEAD_BYTES), file.read()
        return pickle.loads(content) if is_ours and head == _head(path, content) else None  # noqa: S301
    except Exception:  # noqa: BLE001 - it is made anew
        return None


def save(path: str, pickled: bytes) -> None:
    """Keep a pickle for `load`: whole, or not at all where there is no room."""
    part = f"{path}.{os.getpid()}.{threading.get_ident()}"
    with contextlib.suppress(OSError):
        try:
            with open(part, "wb") as file:
                file.write(_head(path, pickled) + pickled)
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)


def _head(path: str, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(os.fsencode(os.path.basename(path))))
    return _FORMAT + checksum.to_bytes(4, "little")


@functools.cache
def fingerprint(path: str) -> str:
    """16 hex digits that differ when the file, or any file of the package that it leads to, differs."""
    known: set[str] = set()
    pending = [path]
    while pending:
        path = pending.pop()
        if path not in known:
            known.add(path)
            pending += _content(path)[1]
    if any(path.startswith(_SCHEMA) for path in known):
        known.update(_declarations())
    digest = hashlib.sha256()
    for path in sorted(known):
        digest.update(b"%s %s\n" % (os.fsencode(os.path.relpath(path, PACKAGE)), _content(path)[0]))
    return digest.hexdigest()[:16]


@functools.cache
def _content(path: str) -> tuple[bytes, tuple[str, ...]]:
    """Hash of a file, and the files of the package that it imports."""
    with open(path, "rb") as file:
        source = file.read()
    imported = []
    for package, names, module in _IMPORT.findall(source) if path.endswith(".py") else ():
        start = (package or module).decode().replace(".", os.sep)
        words = re.findall(r"\w+", names.decode())
        for place in (start, *(os.path.join(start, word) for word in words)):
            for end in (".py", os.path.join("", "__init__.py")):
                file_path = PACKAGE + place + end
                if place and os.path.isfile(file_path):
                    imported.append(file_path)
    return hashlib.sha256(source).digest(), tuple(imported)


@functools.cache
def _declarations() -> list[str]:
    folder = next(filter(os.path.isdir, _DECLARATIONS))
    return [
        os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(".toml")
    ]


def _user_cache() -> str | None:
    """Of a user that has a home."""
    place = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(place, "stratokit") if os.path.isabs(place) else None


def _made(path: str) -> str | None:
    """`path` without links, a directory of ours, made if need be; None where it cannot be, or is not safe."""
    path = os.path.realpath(path)
    try:
        _make(path, 0o700)
        return path if _is_safe(path) and os.access(path, os.W_OK) else None
    except OSError:
        return None


def _make(path: str, mode: int) -> None:
    if not os.path.isdir(path):
        _make(os.path.dirname(path), 0o755)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)


def _is_safe(path: str) -> bool:
    """Whether a directory is ours alone, and nobody else can move what it lies in.

    Others are all but the owners of the system and of this package, who could change what runs here anyway.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o777 != 0o700:
        return False
    trusted = {os.geteuid(), os.stat(os.sep).st_uid, os.stat(PACKAGE).st_uid}
    while path != os.sep:
        path = os.path.dirname(path)
        found = os.lstat(path)
        writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
        if writable or found.st_uid not in trusted:
            return False
    return True
