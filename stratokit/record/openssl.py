"""Where OpenSSL is: libraries of the chosen processes, in whatever file system and whenever they come.

A probe stands on a file, and so in every process that maps it now or later. Looked for are files that define
OpenSSL's functions: what the chosen processes have mapped, programs that carry it in themselves and show its
symbols, and what lies in the usual folders of their root, which a process that starts later will map. The
kernel programs name processes that execute or map a file for the first time; these are looked at soon after.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import pathlib
from typing import TYPE_CHECKING

from stratokit.record import elf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stratokit.record.loader import Kernel

# Function of OpenSSL -> (program at its entry, program at its return) of bpf/tls.c.
FUNCTIONS = {
    "SSL_read": ("tls_read", "tls_return"),
    "SSL_read_ex": ("tls_read_ex", "tls_return"),
    "SSL_write": ("tls_write", "tls_return"),
    "SSL_write_ex": ("tls_write_ex", "tls_return"),
    "SSL_sendfile": ("tls_sendfile", "tls_return"),
    "SSL_do_handshake": ("tls_handshake", "tls_return"),
    "SSL_connect": ("tls_handshake", "tls_return"),
    "SSL_accept": ("tls_handshake", "tls_return"),
    "SSL_new": ("", "tls_made"),
    "SSL_free": ("tls_freed", ""),
}
_NEEDED = ("SSL_read", "SSL_write")
_FOLDERS = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "usr/local/lib64")
# What executes or maps a file is told before it has it; so long it is looked at again.
_AGAIN_NS = 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Mapped:
    """A file that a process may execute code of: `path` is its name for it, `place` where we reach it."""

    path: str
    place: str


def mapped(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> Iterator[Mapped]:
    """Files that a process has mapped to be executed, each once."""
    seen = set()
    try:
        lines = (proc / str(pid) / "maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        span, rights, _, device, inode, *name = line.split(None, 5)
        if "x" not in rights or inode == "0" or not name or (device, inode) in seen:
            continue
        seen.add((device, inode))
        # By its mapping a file is reached whatever its name is by now; not everybody may.
        place = f"{proc}/{pid}/map_files/{span}"
        path = name[0].removesuffix(" (deleted)")
        yield Mapped(path, place if os.access(place, os.R_OK) else f"{proc}/{pid}/root{path}")


class OpenSsl:
    """Watches OpenSSL for one recording.

    `libraries` are those that are watched: (path, functions). `counts` are counters of the recorder.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._seen: dict[tuple[int, int], bool] = {}  # device and inode: whether it is watched
        self._roots: set[tuple[int, int]] = set()
        self._without: set[int] = set()
        self._waiting: dict[int, int] = {}  # pid -> until when to look at it
        self._found = 0
        self.libraries: list[tuple[str, int]] = []
        self.counts = {"tls_library_refused": 0, "tls_without_library": 0}

    def begin(self, pids: Iterable[int] | None, look_here: bool) -> None:
        """Look at these processes, None for all; `look_here`: at the recorder's own root too."""
        if look_here:
            self._look_in_root("/proc/self/root")
        for pid in _processes() if pids is None else pids:
            if pid != os.getpid():
                self._look_at(pid)
        self._count()

    def look(self, now_ns: int, also: Iterable[int] = ()) -> None:
        """Look at processes of which the kernel programs told since, and at others that came into scope."""
        for pid in also:
            self._waiting.setdefault(pid, now_ns + _AGAIN_NS)
        found = self._kernel.tls_files_found()
        if found != self._found:
            self._found = found
            for pid in self._kernel.take_tls_files():
                self._waiting[pid] = now_ns + _AGAIN_NS
        if not self._waiting:
            return
        for pid, until_ns in list(self._waiting.items()):
            self._look_at(pid)
            if now_ns > until_ns:
                del self._waiting[pid]
        self._count()

    def _count(self) -> None:
        self.counts["tls_without_library"] = len(self._without)

    def _look_at(self, pid: int) -> None:
        """Watch what this process has mapped, and what lies in its root."""
        self._look_in_root(f"/proc/{pid}/root")
        files = list(mapped(pid))
        if not files:  # a thread of the kernel, or gone
            return
        watched = [self._watch(file.place, file.path) for file in files]
        if any(watched):
            self._without.discard(pid)
        else:
            self._without.add(pid)

    def _look_in_root(self, root: str) -> None:
        """OpenSSL's usual places below a root directory, once for each."""
        try:
            found = os.stat(root)
        except OSError:
            return
        if (key := (found.st_dev, found.st_ino)) in self._roots:
            return
        self._roots.add(key)
        for folder in _FOLDERS:
            for pattern in ("libssl*.so*", "*-linux-gnu*/libssl*.so*"):
                for path in glob.iglob(f"{glob.escape(root)}/{folder}/{pattern}"):
                    self._watch(_within(root, path), path.removeprefix(root))

    def _watch(self, place: str, path: str) -> bool:
        """Attach to a file where it is OpenSSL's and not watched yet; returns whether it is watched."""
        try:
            found = os.stat(place)
            if (key := (found.st_dev, found.st_ino)) in self._seen:
                return self._seen[key]
            self._seen[key] = False
            offsets = elf.functions(place, FUNCTIONS)
        except OSError:
            return False
        if not all(name in offsets for name in _NEEDED):
            return False
        try:
            self._kernel.attach_functions(place, offsets, FUNCTIONS)
        except OSError:
            self.counts["tls_library_refused"] += 1
            return False
        self._seen[key] = True
        self.libraries.append((path, len(offsets)))
        return True


def _within(root: str, path: str) -> str:
    """The file that a path below `root` means, whose absolute links are meant from there too."""
    for _ in range(8):
        if not os.path.islink(path):
            break
        target = os.readlink(path)
        path = f"{root}{target}" if target.startswith("/") else f"{os.path.dirname(path)}/{target}"
    return path


def _processes() -> Iterator[int]:
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                yield int(name)
