"""Where compiled kernels are kept, so that they are compiled once and never outlive their source.

numba looks at the file of a kernel to know whether what it cached still holds, but not at the kernels and
constants that this one takes from other files: after an edit or a checkout it would run old machine code
without a word. So each module's directory is named after the content of the module and of what it imports.
It stands beside the source, or in the user's cache directory, or, for a service account without either, in a
temporary one. It holds code that is executed: in a shared place it must be ours alone.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time

PACKAGE = os.path.dirname(os.path.abspath(__file__))
PREFIX = "kernels"
WEEK_S = 7 * 86400
# What a module imports when it is imported itself: indented lines are for type checkers or for later.
_IMPORT = re.compile(
    rb"^(?:from stratokit([\w.]*) import (\([^)]*\)|.*)|import stratokit([\w.]*))", re.MULTILINE
)
# A module below the first reads declarations in one of the others: inside a wheel, or beside the package.
_SCHEMA = os.path.join(PACKAGE, "schema", "")
_DECLARATIONS = (os.path.join(PACKAGE, "_schemas"), os.path.join(os.path.dirname(PACKAGE), "schemas"))


@functools.cache
def parent() -> str:
    """The directory that holds the kernels of all modules: the user's choice for numba, else ours."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return chosen
    for place in (os.path.join(PACKAGE, "__pycache__"), os.path.join(_user_cache(), "stratokit")):
        if _can_make(place):
            return os.path.join(place, PREFIX)
    own = os.path.join(tempfile.gettempdir(), f"stratokit-{os.getuid()}")
    return os.path.join(own if _is_ours(own) else tempfile.mkdtemp(prefix="stratokit-"), PREFIX)


def is_ours(path: str) -> bool:
    """Whether this is a file of the package."""
    return os.path.abspath(path).startswith(os.path.join(PACKAGE, ""))


@functools.cache
def place(path: str) -> str:
    """Directory for the kernels of the module in the file `path`, made; its others go after a week."""
    module = os.path.relpath(path, PACKAGE)[: -len(".py")].replace(os.sep, ".")
    name = f"{module}-{fingerprint(path)}"
    where = os.path.join(parent(), name)
    if not os.path.isdir(where):
        os.makedirs(where, exist_ok=True)
        for other in os.scandir(parent()):
            ours = other.name.rpartition("-")[0] == module
            if ours and time.time() - other.stat().st_mtime > WEEK_S:
                shutil.rmtree(other.path, ignore_errors=True)
    return where


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


def _user_cache() -> str:
    return os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")


def _can_make(path: str) -> bool:
    """True when `path` is a writable directory, or could be made below one."""
    while not os.path.exists(path):
        path, before = os.path.dirname(path), path
        if path == before:
            return False
    return os.path.isdir(path) and os.access(path, os.W_OK)


def _is_ours(path: str) -> bool:
    """Make `path` for us alone, or find it so; a link or another user's directory is not."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
