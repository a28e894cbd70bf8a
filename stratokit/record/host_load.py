"""What a recording costs the host: CPU of the recorder and of its kernel programs, memory, disk."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib

# What the kernel does around a run of a program, by kind as in bpf/limits.c: at tracepoints of calls and for
# packets measured (benchmarks/bench_around.py), at uprobes about what it takes to stop twice. A packet also
# leads to a callback of its socket (bpf/sockets.c), of 90 ns.
AROUND_NS = (40, 150, 20, 3000, 40, 40)
# About what an event costs of which programs are not measured: sockets, owners, processes.
EVENT_NS = 1000
# Kept free for others where nothing was said.
FREE_MOST, FREE_SHARE = 256 << 20, 0.01
_MADV_PAGEOUT = 21
_libc = ctypes.CDLL(None, use_errno=True)


def busy_ns() -> int:
    """CPU time of all processors so far, in which they were neither idle nor waiting for a disk."""
    with pathlib.Path("/proc/stat").open("rb", buffering=0) as file:
        fields = file.read(512).split(b"\n", 1)[0].split()
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user (proc_stat(5)).
    ticks = [int(field) for field in fields[1:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def programs_ns(
    before: list[list[tuple[int, int]]], now: list[list[tuple[int, int]]]
) -> list[tuple[int, ...]]:
    """CPU time by processor and kind, between two readings of (runs, ns) by kind and processor, with what the
    kernel does around the runs.
    """
    by_kind = (
        [ns - ns_then + around_ns * (runs - runs_then) for (runs_then, ns_then), (runs, ns) in pairs]
        for around_ns, pairs in zip(AROUND_NS, map(zip, before, now), strict=True)
    )
    return list(zip(*by_kind, strict=True))


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
