"""What a recording costs the host: CPU of the recorder and of its kernel programs, memory, disk."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import struct
from typing import TYPE_CHECKING

from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_OBJ_GET_INFO_BY_FD, _ENABLE_STATS = 15, 32  # enum bpf_cmd
_RUN_TIME, _INFO_BYTES = 192, 256  # struct bpf_prog_info: run_time_ns, run_cnt
# The kernel measures its programs for so long of each span, because measuring costs a tenth of what they do.
SLICE_NS = 100_000_000
# Where it may not be asked to (CAP_SYS_ADMIN): about what one event costs the program that it interrupts.
GUESS_NS = 400
# Kept free for others where nothing was said.
FREE_MOST, FREE_SHARE = 256 << 20, 0.01
_MADV_PAGEOUT = 21
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    number = next(call.number for call in load.syscalls().values() if call.name == "bpf")
    return int(_libc.syscall(number, command, attr, ctypes.sizeof(attr)))


def run_time_ns(program_fd: int) -> int:
    """Nanoseconds that the kernel spent in a program while it measured."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    attr = ctypes.create_string_buffer(
        struct.pack("<IIQ", program_fd, _INFO_BYTES, ctypes.addressof(info)), 128
    )
    if _bpf(_OBJ_GET_INFO_BY_FD, attr) < 0:
        return 0
    return int(struct.unpack_from("<Q", info.raw, _RUN_TIME)[0])


class ProgramTime:
    """CPU time of kernel programs: measured in a slice of each span and scaled to the whole of it."""

    def __init__(self, program_fds: Callable[[], Iterable[int]]) -> None:
        self._fds = program_fds
        self._stats: int | None = None
        self._began = (0, 0)
        self._share: float | None = None

    def begin(self, now_ns: int) -> None:
        """Begin a slice. Where the kernel refuses, `spent_ns` guesses."""
        fd = _bpf(_ENABLE_STATS, ctypes.create_string_buffer(128))
        self._stats = fd if fd >= 0 else None
        if self._stats is None:
            self._share = None
        self._began = (now_ns, self._sum())

    def end(self, now_ns: int) -> None:
        """End the slice once it is long enough."""
        if self._stats is None or now_ns - self._began[0] < SLICE_NS:
            return
        os.close(self._stats)
        self._stats = None
        self._share = (self._sum() - self._began[1]) / (now_ns - self._began[0])

    def _sum(self) -> int:
        return sum(run_time_ns(fd) for fd in self._fds())

    def spent_ns(self, span_ns: int, events: int) -> int:
        """In a span in which so many events were seen."""
        return events * GUESS_NS if self._share is None else round(self._share * span_ns)

    def close(self) -> None:
        """Let the kernel measure no longer."""
        if self._stats is not None:
            os.close(self._stats)
            self._stats = None


def maps_bytes() -> int:
    """Memory of the kernel's maps that this process holds."""
    maps: dict[str, int] = {}
    for name in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(OSError):
            text = pathlib.Path("/proc/self/fdinfo", name).read_text()
            found = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            if "map_id" in found:  # one map may have several descriptors
                maps[found["map_id"]] = int(found.get("memlock", 0))
    return sum(maps.values())


def anonymous_bytes() -> int:
    """Memory of this process that is in no file: the host cannot take it back."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) << 10


def give_back_pages() -> None:
    """Pages of the compiler's library, which was needed once: the kernel may have them."""
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if len(fields) > 5 and ("libclang" in fields[5] or "libLLVM" in fields[5] or "libbcc" in fields[5]):
            low, high = (int(part, 16) for part in fields[0].split("-"))
            _libc.madvise(ctypes.c_void_p(low), ctypes.c_size_t(high - low), _MADV_PAGEOUT)
    with contextlib.suppress(AttributeError):
        _libc.malloc_trim(0)


class Disk:
    """How much more may be written to the file system of `folder`."""

    def __init__(self, folder: pathlib.Path, most: int | None, free: int | None) -> None:
        self._folder = folder
        self._most = most
        found = os.statvfs(folder)
        self.floor = (
            min(FREE_MOST, round(found.f_blocks * found.f_frsize * FREE_SHARE)) if free is None else free
        )

    def room(self, written: int) -> int:
        """Bytes that may still be written when `written` were."""
        found = os.statvfs(self._folder)
        free = found.f_bavail * found.f_frsize - self.floor
        return free if self._most is None else min(free, self._most - written)
