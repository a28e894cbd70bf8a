"""Can this host and user record? Each feature is tried; where it fails, what is missing and what mends it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import platform
import sys
from typing import TYPE_CHECKING

from stratokit.errors import StratokitError
from stratokit.record import btf, control, symbols, trials
from stratokit.record.bcc import import_bcc
from stratokit.record.loader import Kernel
from stratokit.record.openssl import OpenSsl
from stratokit.record.options import RecordOptions
from stratokit.record.trials import Check, with_capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bits of capabilities(7).
CAPABILITIES = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
FEATURES = {
    "packets": ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"),
    "sockets": ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"),
    "owners": ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"),
    "syscalls": ("CAP_BPF", "CAP_PERFMON"),
    "processes": ("CAP_BPF", "CAP_PERFMON"),
    "drops": ("CAP_BPF", "CAP_PERFMON"),
    "devices": ("CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON"),
    "tls": ("CAP_BPF", "CAP_PERFMON"),
    "older sockets": ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"),
}
# What is recorded unless it is asked for otherwise.
DEFAULT = ("packets", "sockets", "owners", "syscalls", "processes", "drops")
# Atomic operations with a result came with 5.12; the ring buffer with 5.8.
OLDEST_KERNEL = (5, 12)


def effective_capabilities() -> frozenset[str]:
    """Names of the capabilities that this process has."""
    text = pathlib.Path("/proc/self/status").read_text()
    mask = int(next(line for line in text.splitlines() if line.startswith("CapEff")).split()[1], 16)
    return frozenset(name for name, bit in CAPABILITIES.items() if mask >> bit & 1)


def examine() -> list[Check]:
    """All checks, those of the whole host first."""
    found = list(_host())
    for feature, needed in FEATURES.items():
        found += _capabilities(feature, needed)
    if sys.platform == "linux" and all(check.ok for check in found if check.feature == "recording"):
        found.append(trials.pid_namespace())
        found += _attempts()
        found.append(_control())
    return found


def _control() -> Check:
    """Whether `stratokit trigger` could reach a flight recorder of this user."""
    socket = control.ControlSocket(lambda _: "", dict)
    socket.close()
    remedy = "set XDG_RUNTIME_DIR to a folder of your own, or trigger with kill -USR1"
    found = socket.problem or str(socket.path.parent)
    return Check("flight recorder", "control socket", not socket.problem, found, socket.problem and remedy)


def _host() -> Iterator[Check]:
    if sys.platform != "linux":
        yield Check(
            "recording", "Linux", False, sys.platform, "record on a Linux host; reports work anywhere"
        )
        return
    release = platform.release()
    numbers = tuple(int(part) for part in release.replace("-", ".").split(".")[:2] if part.isdigit())
    yield Check(
        "recording",
        "kernel",
        numbers >= OLDEST_KERNEL,
        release,
        "" if numbers >= OLDEST_KERNEL else "start a kernel of version 5.12 or later",
    )
    try:
        bcc = import_bcc()
        yield Check("recording", "bcc", True, f"version {getattr(bcc, '__version__', 'unknown')}")
    except StratokitError as error:
        yield Check("recording", "bcc", False, str(error).partition(";")[0], trials.install_bcc())
    yield trials.buffer()
    yield from trials.host()
    yield trials.paranoid(may="CAP_PERFMON" in effective_capabilities())
    offsets = btf.kernel_offsets()

    for feature, needs in (("drops", "HAVE_DROP_BTF"), ("devices", "HAVE_DEVICE_BTF")):
        yield Check(
            feature,
            "BTF",
            needs in offsets,
            str(btf.VMLINUX) if needs in offsets else f"{btf.VMLINUX} is missing or lacks what is read",
            "" if needs in offsets else "start a kernel built with CONFIG_DEBUG_INFO_BTF",
        )
    kallsyms = symbols.Kallsyms()
    readable = kallsyms.readable()
    kallsyms.close()
    yield Check(
        "drops",
        "symbols",
        readable,
        f"{symbols.KALLSYMS} {'can' if readable else 'cannot'} be read",
        "" if readable else with_capabilities((*FEATURES["drops"], "CAP_SYSLOG")),
    )


def _capabilities(feature: str, needed: tuple[str, ...]) -> Iterator[Check]:
    if sys.platform != "linux":
        return
    present = effective_capabilities()
    alone = tuple(name for default in DEFAULT for name in FEATURES[default])
    together = needed if feature != "older sockets" else tuple(dict.fromkeys((*alone, *needed)))
    for name in needed:
        ok = name in present
        yield Check(
            feature, name, ok, "present" if ok else "missing", "" if ok else with_capabilities(together)
        )


def _attempts() -> Iterator[Check]:
    """Load and attach the programs of each feature, and detach them at once."""
    path = pathlib.Path(os.devnull)
    options = RecordOptions(
        output=path,
        spool=path,
        syscalls="default" if platform.machine() == "x86_64" else "none",
        tls=platform.machine() == "x86_64",
        buffer_bytes=1 << 16,
    )
    try:
        with contextlib.closing(Kernel(options)) as kernel:
            for name in kernel.names:
                yield _attempt(kernel, name)
            if "tls" in kernel.names:
                yield _openssl(kernel)
    except StratokitError as error:
        needed = tuple(dict.fromkeys(name for feature in DEFAULT for name in FEATURES[feature]))
        yield Check("recording", "load", False, str(error), with_capabilities(needed))
        return
    at_devices = dataclasses.replace(options, interfaces=("any",), sockets=False, syscalls="none", tls=False)
    try:
        with contextlib.closing(Kernel(at_devices)) as kernel:
            yield _attempt(kernel, "devices")
    except StratokitError as error:
        yield Check("devices", "load", False, str(error), with_capabilities(FEATURES["devices"]))


def _attempt(kernel: Kernel, name: str) -> Check:
    try:
        kernel.attach_feature(name)
    except StratokitError as error:
        return Check(name, "attach", False, str(error), with_capabilities(FEATURES[name]))
    return Check(name, "attach", True, "loaded and attached")


def _openssl(kernel: Kernel) -> Check:
    """Attach to OpenSSL where it usually is."""
    found = OpenSsl(kernel)
    found.begin((), look_here=True)
    refused = found.counts["tls_library_refused"]
    return Check(
        "tls",
        "OpenSSL",
        not refused,
        f"{refused} of its libraries cannot be watched"
        if refused
        else f"watched in {len(found.libraries)} files; programs with TLS of their own (Go, Java, Rust, "
        "GnuTLS, BoringSSL, or OpenSSL built in without symbols) are not seen",
        with_capabilities(FEATURES["tls"]) + "; the kernel needs CONFIG_UPROBES" if refused else "",
    )
