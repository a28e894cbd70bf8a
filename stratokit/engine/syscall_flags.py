"""Names of the numbers that system calls take, with the values of x86_64."""

from __future__ import annotations

from collections.abc import Callable

_OPEN = {
    0o100: "O_CREAT",
    0o200: "O_EXCL",
    0o400: "O_NOCTTY",
    0o1000: "O_TRUNC",
    0o2000: "O_APPEND",
    0o4000: "O_NONBLOCK",
    0o10000: "O_DSYNC",
    0o20000: "O_ASYNC",
    0o40000: "O_DIRECT",
    0o100000: "O_LARGEFILE",
    0o200000: "O_DIRECTORY",
    0o400000: "O_NOFOLLOW",
    0o1000000: "O_NOATIME",
    0o2000000: "O_CLOEXEC",
    0o10000000: "O_PATH",
}
_TMPFILE = 0o20200000  # contains O_DIRECTORY
_SYNC = 0o4010000  # contains O_DSYNC
_ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")
_AT = {
    0x100: "AT_SYMLINK_NOFOLLOW",
    0x200: "AT_REMOVEDIR",
    0x400: "AT_SYMLINK_FOLLOW",
    0x800: "AT_NO_AUTOMOUNT",
    0x1000: "AT_EMPTY_PATH",
    0x2000: "AT_STATX_FORCE_SYNC",
    0x4000: "AT_STATX_DONT_SYNC",
}
_FAMILIES = {
    0: "AF_UNSPEC",
    1: "AF_UNIX",
    2: "AF_INET",
    10: "AF_INET6",
    16: "AF_NETLINK",
    17: "AF_PACKET",
    38: "AF_ALG",
    40: "AF_VSOCK",
    44: "AF_XDP",
}
_SOCKET_TYPES = {
    1: "SOCK_STREAM",
    2: "SOCK_DGRAM",
    3: "SOCK_RAW",
    4: "SOCK_RDM",
    5: "SOCK_SEQPACKET",
    10: "SOCK_PACKET",
}
_SOCKET_FLAGS = {0o4000: "SOCK_NONBLOCK", 0o2000000: "SOCK_CLOEXEC"}
_MESSAGE = {
    0x1: "MSG_OOB",
    0x2: "MSG_PEEK",
    0x4: "MSG_DONTROUTE",
    0x8: "MSG_CTRUNC",
    0x20: "MSG_TRUNC",
    0x40: "MSG_DONTWAIT",
    0x80: "MSG_EOR",
    0x100: "MSG_WAITALL",
    0x800: "MSG_CONFIRM",
    0x2000: "MSG_ERRQUEUE",
    0x4000: "MSG_NOSIGNAL",
    0x8000: "MSG_MORE",
    0x10000: "MSG_WAITFORONE",
    0x4000000: "MSG_ZEROCOPY",
    0x20000000: "MSG_FASTOPEN",
    0x40000000: "MSG_CMSG_CLOEXEC",
}
_FCNTL = {
    0: "F_DUPFD",
    1: "F_GETFD",
    2: "F_SETFD",
    3: "F_GETFL",
    4: "F_SETFL",
    5: "F_GETLK",
    6: "F_SETLK",
    7: "F_SETLKW",
    8: "F_SETOWN",
    9: "F_GETOWN",
    10: "F_SETSIG",
    11: "F_GETSIG",
    1024: "F_SETLEASE",
    1025: "F_GETLEASE",
    1026: "F_NOTIFY",
    1030: "F_DUPFD_CLOEXEC",
    1031: "F_SETPIPE_SZ",
    1032: "F_GETPIPE_SZ",
    1033: "F_ADD_SEALS",
    1034: "F_GET_SEALS",
}
# fmt: off
_SIGNALS = (
    "0", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL",
    "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT",
    "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF",
    "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
)
# fmt: on
_LOW = 0xFFFFFFFF
CREATES = 0o100 | 0o20000000  # with these bits in the open flags the mode argument counts


def _set(value: int, names: dict[int, str], found: list[str]) -> str:
    """Names of the bits joined by |, and what is left over as a number."""
    for bit, name in names.items():
        if value & bit == bit:
            found.append(name)
            value &= ~bit
    if value or not found:
        found.append(hex(value) if value else "0")
    return "|".join(found)


def _open_flags(value: int) -> str:
    value &= _LOW
    found = [_ACCESS[value & 3]]
    value &= ~3
    for bits, name in ((_TMPFILE, "O_TMPFILE"), (_SYNC, "O_SYNC")):
        if value & bits == bits:
            found.append(name)
            value &= ~bits
    return _set(value, _OPEN, found)


def _socket_type(value: int) -> str:
    value &= _LOW
    kind = value & 0xF
    found = [_SOCKET_TYPES.get(kind, str(kind))] if kind else []
    return _set(value & ~0xF, _SOCKET_FLAGS, found)


def _signal(value: int) -> str:
    value &= _LOW
    return _SIGNALS[value] if value < len(_SIGNALS) else f"SIGRT_{value - 32}"


# By the kinds of arguments in schemas/syscalls/calls.toml; called once for each distinct number.
NAMED: dict[str, Callable[[int], str]] = {
    "open_flags": _open_flags,
    "at_flags": lambda value: _set(value & _LOW, _AT, []),
    "socket_family": lambda value: _FAMILIES.get(value & _LOW, str(value & _LOW)),
    "socket_type": _socket_type,
    "message_flags": lambda value: _set(value & _LOW, _MESSAGE, []),
    "fcntl_command": lambda value: _FCNTL.get(value & _LOW, str(value & _LOW)),
    "signal": _signal,
    "octal": lambda value: f"0{value & _LOW:o}" if value & _LOW else "0",
}
