"""What a recording is asked to do, and what it tells while it runs and when it ends."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pathlib

SNAPLEN_MOST = 65535
FRAME_BYTES_MOST = 262144  # as tcpdump's
IO_BYTES_MOST = 16384
BUFFER_BYTES = 64 << 20
# What a recording may cost a host, where nothing was said: with what cannot be measured (caches that it takes
# from others) that comes to a tenth.
DEFAULT_BUSY_SHARE = 0.08
TLS_BYTES_MOST = 1 << 20  # more turns of its loop the verifier does not follow


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Who is recorded: whatever one of these names. An empty one is the whole host.

    `pids` with all their descendants, `comms` by the name of the process, `uids` by real user id; `cgroups`
    are paths below the mount point or in it, `containers` ids or names, `pods` and `namespaces` those of
    Kubernetes. `command` is the command that the recorder starts.
    """

    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    command: bool = False

    def __bool__(self) -> bool:
        return self.by_task or self.by_cgroup

    @property
    def by_task(self) -> bool:
        """Whether processes are chosen that may be in any cgroup."""
        return bool(self.pids or self.comms or self.uids or self.command)

    @property
    def by_cgroup(self) -> bool:
        """Whether cgroups are chosen, which contain all of their processes."""
        return bool(self.cgroups or self.containers or self.pods or self.namespaces)


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """What of a filter the kernel programs decide; `text` is all of it, for the conversion.

    `packet_test` and `call_test` are C, empty where everything passes (see `filters.kernel`).
    `conversations`: packet_test asks what a connection carries. `calls` are the system calls that may match,
    `names_files` says that the names of their files are asked for. `dns_errors_only` is for the conversion.
    """

    text: str = ""
    packet_test: str = ""
    conversations: bool = False
    call_test: str = ""
    calls: tuple[str, ...] = ()
    names_files: bool = False
    dns_errors_only: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What the recording may use; None where nothing was said.

    `cpu` is a share of one processor (0.2: a fifth), for the recorder and its kernel programs together;
    `busy_share` one of the time in which processors are busy, or of one processor where they are so for less.
    `memory_bytes` is for what the host cannot take back: anonymous memory and the kernel's maps, the buffer
    among them. `disk_bytes` is for what is written, `free_bytes` is what others shall find free on that disk.
    """

    cpu: float | None = None
    busy_share: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    free_bytes: int | None = None

    @property
    def shed(self) -> bool:
        """Whether something may be left out to stay within them."""
        return self.cpu is not None or self.busy_share is not None or self.disk_bytes is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Rotation:
    """A row of captures: a new one begins after so many bytes of the spool or so much time, and of all of
    them the last `count` are kept.
    """

    size_bytes: int | None = None
    time_ns: int | None = None
    count: int | None = None

    def __bool__(self) -> bool:
        return bool(self.size_bytes or self.time_ns)


@dataclasses.dataclass(frozen=True, slots=True)
class Keep:
    """A flight recorder: a window of so much time and so many bytes, of which a trigger makes a capture.

    A capture has what was `before_ns` before the trigger (None: the whole window) until `after_ns` after it.
    """

    keep_ns: int | None = None
    size_bytes: int = 0
    in_memory: bool = False
    before_ns: int | None = None
    after_ns: int = 0
    triggers: tuple[Trigger, ...] = ()
    limit: int = 0  # so many captures by expressions

    def __bool__(self) -> bool:
        return self.size_bytes > 0


@dataclasses.dataclass(frozen=True, slots=True)
class Trigger:
    """`text` as it was written. `test` is C for events of `kind` (call, socket, process), which the programs
    count: more than `more_than` within `within_ns` (0: since the last look) trigger. `calls` are the system
    calls that may. `kind` exit is the end of the recording.
    """

    text: str
    kind: str
    test: str = ""
    more_than: int = 0
    within_ns: int = 0
    calls: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class RecordOptions:
    """Settings of one recording.

    `syscalls` is all, default, none, or a comma-separated list of names and groups. `buffer_bytes` is rounded
    up to a power of two. `command` is empty when nothing is started. `user` is who the recorder becomes once
    everything is attached. With `interfaces` packets are recorded
    as frames at these devices instead of at sockets, in the network namespaces `netns`, empty for the own
    one.
    `redact` are profiles for the conversion, `keylog` a file of TLS secrets of which it takes what was
    written behind `keylog_offset`.
    `tls_bytes` of each call of OpenSSL are kept where `tls` asks for plaintext.
    """

    output: pathlib.Path
    spool: pathlib.Path
    duration_ns: int | None = None
    snaplen: int = SNAPLEN_MOST
    io_bytes: int = 80
    syscalls: str = "default"
    packets: bool = True
    sockets: bool = True
    buffer_bytes: int = BUFFER_BYTES
    command: tuple[str, ...] = ()
    scope: Scope = Scope()
    filter: Filter = Filter()
    redact: str = ""
    keylog: str = ""
    keylog_offset: int = 0
    tls: bool = False
    tls_bytes: int = 1 << 20
    limits: Limits = Limits()
    user: int | None = None
    interfaces: tuple[str, ...] = ()
    netns: tuple[str, ...] = ()
    drops: bool = True
    rotation: Rotation = Rotation()
    keep: Keep = Keep()

    @property
    def rolling(self) -> bool:
        """Whether the spool is a row of segments."""
        return bool(self.rotation or self.keep)


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """How far a recording is: totals since its start."""

    elapsed_ns: int
    counts: dict[str, int]
    bytes_written: int
    lost: dict[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """A finished recording: its spool (None where its segments were converted while it went on), the
    command's exit code, why it ended, totals, and the captures that were made of segments.
    """

    spool: pathlib.Path | None
    exit_code: int | None
    reason: str
    status: Status
    outputs: tuple[pathlib.Path, ...] = ()
