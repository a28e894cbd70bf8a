"""Where compiled kernels are kept, so that they are compiled once and never outlive their source.

numba looks at the file of a kernel to know whether what it cached still holds, but not at the kernels that
this one calls from other files: after an edit or a checkout it would run old machine code without a word. So
the directory is named after the content of all kernels. It stands beside the source, or in the user's cache
directory, or, for a service account without either, in a temporary one. It holds code that is executed: in
a shared place it must be ours alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time

PACKAGE = os.path.dirname(os.path.abspath(__file__))
PREFIX = "kernels-"
WEEK_S = 7 * 86400
_VARIABLE = "NUMBA_CACHE_DIR"


def choose() -> None:
    """Set NUMBA_CACHE_DIR where the user has not. Call before numba is imported."""
    if _VARIABLE in os.environ:
        return
    name = PREFIX + fingerprint(PACKAGE)
    for parent in (os.path.join(PACKAGE, "__pycache__"), os.path.join(_user_cache(), "stratokit")):
        if _can_make(parent):
            _forget_others(parent, name)
            os.environ[_VARIABLE] = os.path.join(parent, name)
            return
    own = os.path.join(tempfile.gettempdir(), f"stratokit-{os.getuid()}")
    parent = own if _is_ours(own) else tempfile.mkdtemp(prefix="stratokit-")
    os.environ[_VARIABLE] = os.path.join(parent, name)


def others_environment() -> dict[str, str]:
    """The environment as the user made it, for programs that are not ours: their kernels stand elsewhere."""
    place = os.environ.get(_VARIABLE, "")
    ours = os.path.basename(place).startswith(PREFIX)
    return {name: value for name, value in os.environ.items() if not (ours and name == _VARIABLE)}


def fingerprint(package: str) -> str:
    """16 hex digits that differ when any source file below `package` with a kernel in it differs."""
    digest = hashlib.sha256()
    pending = [package]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".py"):
                    with open(entry.path, "rb") as file:
                        source = file.read()
                    if b"njit" in source:
                        digest.update(b"%s %d\n" % (os.fsencode(entry.name), len(source)) + source)
                elif entry.is_dir() and entry.name != "__pycache__":
                    pending.append(entry.path)
    return digest.hexdigest()[:16]


def _forget_others(parent: str, name: str) -> None:
    """Remove kernels of other versions, made more than a week ago; looked for when a version is new."""
    if os.path.isdir(os.path.join(parent, name)) or not os.path.isdir(parent):
        return
    for other in os.scandir(parent):
        if other.name.startswith(PREFIX) and time.time() - other.stat().st_mtime > WEEK_S:
            shutil.rmtree(other.path, ignore_errors=True)


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
