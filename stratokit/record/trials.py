"""What `stratokit doctor` tries of the host itself, and the commands that mend what lacks."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import pathlib
import platform
import shlex
import shutil
import struct
import sys
from typing import TYPE_CHECKING

from stratokit.record import btf, cgroups, pidns
from stratokit.record.options import BUFFER_BYTES
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAP_CREATE, _RINGBUF = 0, 27
LOCKDOWN = pathlib.Path("/sys/kernel/security/lockdown")
PARANOID = pathlib.Path("/proc/sys/kernel/perf_event_paranoid")
OS_RELEASE = pathlib.Path("/etc/os-release")
_libc = ctypes.CDLL(None, use_errno=True)
# How bcc is installed, by ID or ID_LIKE of os-release(5).
_INSTALL = {
    "debian": "apt-get install python3-bpfcc",
    "fedora": "dnf install python3-bcc",
    "rhel": "dnf install python3-bcc",
    "suse": "zypper install python3-bcc",
    "arch": "pacman -S python-bcc",
    "alpine": "apk add py3-bcc",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: for which feature, what was found, and how to mend it (empty when all is
    well).
    """

    feature: str
    name: str
    ok: bool
    found: str
    remedy: str = ""


def install_bcc(path: pathlib.Path = OS_RELEASE) -> str:
    """The command that installs bcc on this distribution."""
    words: list[str] = []
    with contextlib.suppress(OSError):
        lines = (line.partition("=") for line in path.read_text().splitlines())
        found = {name: value.strip("\"'") for name, _, value in lines}
        words = [found.get("ID", ""), *found.get("ID_LIKE", "").split()]
    known = (command for word in words for name, command in _INSTALL.items() if word.startswith(name))
    return next(known, _INSTALL["debian"])


def this_program() -> str:
    """How this program was started, in words that sudo finds too."""
    script = pathlib.Path(sys.argv[0])
    if script.name == "stratokit" and script.is_file():
        return shlex.quote(str(script.resolve()))
    return f"{shlex.quote(shutil.which(sys.executable) or sys.executable)} -m stratokit"


def with_capabilities(names: tuple[str, ...]) -> str:
    """A command that runs stratokit as the current user with these capabilities. File capabilities (setcap)
    would go to the interpreter, and so to every script on the host.
    """
    short = ",".join("+" + name.removeprefix("CAP_").lower() for name in names)
    user = int(os.environ.get("SUDO_UID") or os.getuid() or 65534)
    group = int(os.environ.get("SUDO_GID") or os.getgid() or 65534)
    return (
        f"sudo setpriv --reuid={user} --regid={group} --clear-groups --inh-caps={short} "
        f"--ambient-caps={short} {this_program()} record"
    )


def host() -> Iterator[Check]:
    """What a feature needs beside capabilities."""
    yield _cgroup2()
    known = platform.machine() == "x86_64"
    remedy = "" if known else "record with --syscalls none; system calls are known for x86_64 only"
    yield Check("syscalls", "machine", known, platform.machine(), remedy)
    has_btf = bool(btf.kernel_offsets())
    found = str(btf.VMLINUX) if has_btf else f"{btf.VMLINUX} is missing or lacks what is read"
    remedy = (
        ""
        if has_btf
        else "start a kernel built with CONFIG_DEBUG_INFO_BTF=y (those of distributions are); "
        "without it descriptors and forks stay unnamed, all else is recorded"
    )
    yield Check("syscalls", "BTF", has_btf, found, remedy)
    yield lockdown()
    yield proc_mount()


def _cgroup2() -> Check:
    root = cgroups.cgroup2_root()
    place = "/sys/fs/cgroup/unified" if pathlib.Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup"
    remedy = f"sudo mkdir -p {place} && sudo mount -t cgroup2 none {place}"
    return Check("packets", "cgroup2", root is not None, str(root or "not mounted"), "" if root else remedy)


def lockdown(path: pathlib.Path = LOCKDOWN) -> Check:
    """A kernel locked down for confidentiality lets no program read its memory (kernel_lockdown(7))."""
    text = "not locked down"
    with contextlib.suppress(OSError):
        text = path.read_text().strip() or text
    ok = "[confidentiality]" not in text
    remedy = (
        ""
        if ok
        else "start the kernel with lockdown=integrity; else only --syscalls none records, without owners"
    )
    return Check("syscalls", "lockdown", ok, text, remedy)


def proc_mount(proc: pathlib.Path = pathlib.Path("/proc")) -> Check:
    """hidepid shows a user his own processes alone (proc(5))."""
    try:
        (proc / "1" / "stat").read_bytes()
    except OSError:
        remedy = "sudo mount -o remount,hidepid=0 /proc, or give CAP_SYS_PTRACE"
        return Check("processes", "/proc", False, "shows own processes only (hidepid)", remedy)
    return Check("processes", "/proc", True, "shows all processes")


def pid_namespace() -> Check:
    """Needs a loaded program, so it is asked when loading is permitted."""
    ok = pidns.proc_agrees(pidns.kernel_pid())
    found = (
        "that of the host" if ok else "a namespace of its own: processes older than the recording are unnamed"
    )
    remedy = "" if ok else "share the host's: docker run --pid=host, hostPID: true, nsenter -t 1 -p"
    return Check("processes", "pid namespace", ok, found, remedy)


def buffer() -> Check:
    """The kernel gives memory for a buffer of the default size."""
    number = next((call.number for call in load.syscalls().values() if call.name == "bpf"), None)
    if number is None:
        return Check("recording", "buffer", True, "not tried on this machine")
    attr = ctypes.create_string_buffer(struct.pack("<IIII", _RINGBUF, 0, 0, BUFFER_BYTES), 128)
    fd = _libc.syscall(number, _MAP_CREATE, attr, ctypes.sizeof(attr))
    code = ctypes.get_errno()
    if fd >= 0:
        os.close(fd)
        return Check("recording", "buffer", True, f"{BUFFER_BYTES >> 20} MB")
    return Check(
        "recording", "buffer", False, f"the kernel refuses it: {os.strerror(code)}", buffer_remedy(code)
    )


def buffer_remedy(code: int, status: pathlib.Path = pathlib.Path("/proc/self/status")) -> str:
    """What mends a refusal with this errno."""
    if code == errno.ENOMEM:
        return (
            "record with --buffer 8M, or raise the memory limit of this cgroup (MemoryMax=, resources.limits)"
        )
    seccomp = "Seccomp:\t2" in status.read_text()
    if code in (errno.EPERM, errno.EACCES) and seccomp:
        return (
            "a seccomp filter refuses bpf(): docker run --security-opt seccomp=unconfined, "
            "or seccompProfile: {type: Unconfined}; and the capabilities below"
        )
    if code == errno.EPERM:
        # Up to 5.10 kernels charged maps to RLIMIT_MEMLOCK.
        return "give the capabilities below; on kernels before 5.11 also: ulimit -l unlimited"
    return "start a kernel of version 5.12 or later"


def paranoid(path: pathlib.Path = PARANOID, may: bool = True) -> Check:
    """Only --tls asks for perf events; CAP_PERFMON stands above this setting."""
    text = "not there"
    with contextlib.suppress(OSError):
        text = path.read_text().strip()
    ok = may or not text.isdecimal() or int(text) <= 2
    remedy = "" if ok else "give CAP_PERFMON as below, or: sudo sysctl kernel.perf_event_paranoid=2"
    return Check("tls", "perf_event_paranoid", ok, text, remedy)
