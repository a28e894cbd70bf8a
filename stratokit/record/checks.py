"""What settings a recording takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stratokit.errors import UsageError
from stratokit.record import guard, privileges
from stratokit.record.options import FRAME_BYTES_MOST, IO_BYTES_MOST, SNAPLEN_MOST, TLS_BYTES_MOST

if TYPE_CHECKING:
    from stratokit.record.options import RecordOptions


def check(options: RecordOptions) -> None:
    """Refuse settings out of range.

    Raises:
        UsageError: with the range.
        RecordError: the user of --user cannot record here.
    """
    most = FRAME_BYTES_MOST if options.interfaces else SNAPLEN_MOST
    if not 64 <= options.snaplen <= most:
        raise UsageError(f"--snaplen takes 64 to {most} bytes, not {options.snaplen}")
    if options.interfaces and options.scope:
        raise UsageError(
            "--interface records the frames of everybody at a device; choose who is recorded without it, "
            "or give --whole-host with a command"
        )
    if options.interfaces and not options.packets:
        raise UsageError("--interface says where packets are recorded, and --no-packets that none are")
    if options.netns and not options.interfaces:
        raise UsageError("--netns says where the devices of --interface are; name one, or any")
    if not 0 <= options.io_bytes <= IO_BYTES_MOST:
        raise UsageError(f"--io-bytes takes 0 to {IO_BYTES_MOST}, not {options.io_bytes}")
    if not 256 <= options.tls_bytes <= TLS_BYTES_MOST:
        raise UsageError(f"--tls-bytes takes 256 to 1M, not {options.tls_bytes}")
    if not 1 << 16 <= options.buffer_bytes <= 1 << 30:
        raise UsageError(f"--buffer takes 64K to 1G, not {options.buffer_bytes}")
    if options.duration_ns is not None and options.duration_ns <= 0:
        raise UsageError("--duration takes a time above zero, as 30s or 5m")
    guard.check(options)
    if options.user is not None:
        privileges.check_user(options.user, options.spool.parent)
