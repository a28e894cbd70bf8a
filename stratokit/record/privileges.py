"""Once everything is attached the recorder gives up what it needed for that, and keeps what it has a use for.

It never gets anything back, nor does what it starts later, the conversion (no_new_privs). A command that is
recorded from its start has been started before.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

from stratokit.errors import RecordError

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterable

    from stratokit.record.options import RecordOptions

# Bits of capabilities(7) that a recording may have a use for later.
BITS = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
    "CAP_CHECKPOINT_RESTORE": 40,
}
_LAST_BIT = 63
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 bits
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 8, 24, 28, 38
_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 47, 4
_NO_ROOT = 3  # SECBIT_NOROOT, locked: user 0 gets nothing by executing a program
_libc = ctypes.CDLL(None, use_errno=True)


def needs(options: RecordOptions, command: bool, other_networks: bool) -> dict[str, str]:
    """Capabilities that are used after the start, and what for."""
    found = {
        "CAP_SYS_PTRACE": "system calls that have not returned at the end, of processes of other users",
        "CAP_DAC_READ_SEARCH": "the same",
    }
    if options.scope.by_cgroup or options.interfaces:
        for name in ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"):
            found[name] = "programs for containers and devices that come later"
    if options.tls:
        found |= dict.fromkeys(("CAP_BPF", "CAP_PERFMON"), "programs for libraries that come later")
        found["CAP_CHECKPOINT_RESTORE"] = "libraries that were removed while processes have them mapped"
    if options.interfaces:
        found["CAP_NET_RAW"] = "sockets at devices that come later"
    if other_networks or options.scope.by_cgroup or options.interfaces:
        found["CAP_SYS_ADMIN"] = "names of interfaces in other network namespaces"
    if command:
        found["CAP_KILL"] = "to end the command, which may have changed its user"
    return found


def drop(
    options: RecordOptions,
    command: bool,
    other_networks: bool,
    owned: Iterable[pathlib.Path],
    reads: Callable[[], bool],
) -> frozenset[str]:
    """Give up all but what `needs` names and is there; returns what is left.

    `owned` are files that become the user's with --user, `reads` says whether the programs' maps can be read.
    """
    effective, permitted = _capabilities()
    keep = sum(1 << BITS[name] for name in needs(options, command, other_networks)) & permitted
    if options.user is not None:
        _become(options.user, owned)
    _set(keep, permitted)
    override = 1 << BITS["CAP_DAC_OVERRIDE"]
    if options.user is None and effective & override and not _writable(options.spool.parent):
        keep |= override  # another user's folder
    if not reads():  # kernels before 6.0 ask for it at every look into a map
        keep |= 1 << BITS["CAP_BPF"] & permitted
    _set(permitted, permitted)
    for bit in range(_LAST_BIT):
        if not keep >> bit & 1:
            _libc.prctl(_PR_CAPBSET_DROP, bit, 0, 0, 0)
    if not keep & override:
        _libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set(keep, keep)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return frozenset(name for name, bit in BITS.items() if keep >> bit & 1)


def check_user(uid: int, folder: pathlib.Path) -> None:
    """Refuse a user who cannot run this program, which is what makes the capture, or write to `folder`.

    Raises:
        RecordError: with the reason.
    """
    if os.geteuid() != 0:
        raise RecordError("--user needs root: only root can become another user")
    script = "import os, sys, stratokit; sys.exit(3 * (not os.access(sys.argv[1], os.W_OK | os.X_OK)))"
    command = [sys.executable, "-c", script, str(folder.resolve())]
    try:
        code = subprocess.run(
            command, user=uid, group=_group(uid), extra_groups=[], capture_output=True, check=False
        ).returncode
    except OSError:
        code = 1
    if code == 3:
        raise RecordError(f"user {uid} may not write to {folder.resolve()}; name another folder with -o")
    if code:
        raise RecordError(
            f"user {uid} cannot run {sys.executable} and stratokit; install them where all may read"
        )


def _group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _become(uid: int, owned: Iterable[pathlib.Path]) -> None:
    group = _group(uid)
    for path in owned:
        os.chown(path, uid, group)
    _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(uid, uid, uid)


def _writable(folder: pathlib.Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _capabilities() -> tuple[int, int]:
    """Effective and permitted ones of this thread."""
    header = ctypes.create_string_buffer(struct.pack("<Ii", _VERSION, 0), 8)
    data = ctypes.create_string_buffer(24)
    _libc.capget(header, data)
    words = struct.unpack("<6I", data.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32


def _set(effective: int, permitted: int) -> None:
    low = 0xFFFFFFFF
    data = struct.pack("<6I", effective & low, permitted & low, 0, effective >> 32, permitted >> 32, 0)
    header = ctypes.create_string_buffer(struct.pack("<Ii", _VERSION, 0), 8)
    _libc.capset(header, ctypes.create_string_buffer(data, 24))
