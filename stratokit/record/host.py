"""Facts about the host and its clocks."""

from __future__ import annotations

import os
import pathlib
import platform
import socket
import time
from typing import Any

# NTP slews at most 500 ppm, 5 ms in the ten seconds between two readings. More is a step.
SET_NS = 10_000_000


def clock_pair() -> dict[str, int]:
    """One reading of the three clocks; `spread_ns` bounds how far apart they were taken.

    The real clock is read between two readings of the monotonic one; of several tries the closest counts.
    """
    best: dict[str, int] = {}
    for _ in range(5):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        real = time.clock_gettime_ns(time.CLOCK_REALTIME)
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if not best or after - before < best["spread_ns"]:
            best = {
                "monotonic_ns": (before + after) // 2,
                "real_ns": real,
                "boot_ns": boot,
                "spread_ns": after - before,
            }
    return best


def was_set(pair: dict[str, int]) -> bool:
    """True when the real clock has been set since the reading `pair`: it only drifts by itself."""
    offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return abs(offset - (pair["real_ns"] - pair["monotonic_ns"])) > SET_NS


def facts() -> dict[str, Any]:
    """What stays the same while recording."""
    system = platform.freedesktop_os_release() if pathlib.Path("/etc/os-release").exists() else {}
    return {
        "hostname": socket.gethostname(),
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "machine": platform.machine(),
        "os": system.get("PRETTY_NAME", platform.system()),
        "processors": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "netns_inode": os.stat("/proc/self/ns/net").st_ino,
    }
