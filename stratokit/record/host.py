"""Facts about the host, its interfaces and its clocks."""

from __future__ import annotations

import os
import pathlib
import platform
import socket
import time
from typing import Any

NET = pathlib.Path("/sys/class/net")


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


def _addresses() -> dict[str, list[str]]:
    """IPv6 from /proc/net/if_inet6; IPv4 by ioctl, one address an interface name."""
    found: dict[str, list[str]] = {}
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                address = socket.inet_ntoa(fcntl.ioctl(probe, 0x8915, request)[20:24])  # SIOCGIFADDR
                mask = fcntl.ioctl(probe, 0x891B, request)[20:24]  # SIOCGIFNETMASK
            except OSError:
                continue
            bits = int.from_bytes(mask, "big").bit_count()
            found.setdefault(name, []).append(f"{address}/{bits}")
    try:
        lines = pathlib.Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        text, _, bits6, _, _, name = line.split()
        address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(text))
        found.setdefault(name, []).append(f"{address}/{int(bits6, 16)}")
    return found


def interfaces() -> list[dict[str, Any]]:
    """Interfaces of this network namespace."""
    addresses = _addresses()
    rows = []
    for index, name in socket.if_nameindex():
        row: dict[str, Any] = {"ifindex": index, "interface": name, "addresses": addresses.get(name, [])}
        for key, file in (("mac", "address"), ("mtu", "mtu")):
            try:
                text = (NET / name / file).read_text().strip()
            except OSError:
                continue
            row[key] = int(text) if key == "mtu" else text
        rows.append(row)
    return rows
