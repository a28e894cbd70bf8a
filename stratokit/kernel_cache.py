"""Where compiled kernels are kept when neither the installation nor the home directory can be written.

numba caches beside the source, or in the user's cache directory; a service account often has neither, and
numba then refuses to start. The cache holds code that is executed, so a directory in a shared place must be
ours alone.
"""

from __future__ import annotations

import os
import stat
import tempfile


def choose() -> None:
    """Set NUMBA_CACHE_DIR where numba would find no place of its own. Call before numba is imported."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    if os.access(os.path.dirname(os.path.abspath(__file__)), os.W_OK) or _can_make(_user_cache()):
        return
    own = os.path.join(tempfile.gettempdir(), f"stratokit-{os.getuid()}")
    os.environ["NUMBA_CACHE_DIR"] = own if _is_ours(own) else tempfile.mkdtemp(prefix="stratokit-")


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
