"""What `stratokit record` is asked for, checked and put together before anything is recorded."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratokit.cli.values import free_output
from stratokit.errors import StratokitError, UsageError

if TYPE_CHECKING:
    from stratokit.record.options import Filter, RecordOptions


def files(output: Path | None, force: bool, several: bool) -> tuple[Path, Path]:
    """The capture, of `several` what their names begin with, and the spool."""
    stamp = "" if several else f"-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
    output = output or Path(f"{platform.node()}{stamp}.parquet")
    if output.suffix not in (".parquet", ".scap"):
        raise UsageError(
            f"a recording is a .parquet or .scap file, not {output.name}; convert makes others of it"
        )
    free_output(output, force or several)
    if output.exists() and not output.is_file():
        raise StratokitError(f"{output} is no file; a recording cannot go to a pipe or device")
    spool = output.with_suffix(".spool")
    if spool.exists() and not several:
        from stratokit.formats.spool import is_being_written

        if is_being_written(spool):
            raise StratokitError(f"{spool} is being written by another recording; choose another -o")
        raise StratokitError(
            f"{spool} is left from an earlier recording; "
            f"save it with 'stratokit convert {spool} OUT.parquet', or remove it"
        )
    return output, spool


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """What is recorded for a filter."""

    syscalls: str
    filter: Filter
    packets: bool = True
    sockets: bool = True


def planned(text: str | None, syscalls: str | None) -> Planned:
    """A filter that says nothing of packets or of system calls needs none of them recorded."""
    from stratokit.record.options import Filter

    if text is None:
        return Planned(syscalls or "default", Filter())
    from stratokit.cli.plan import settings

    found = settings(text)
    packets, calls = found.pop("packets"), found.pop("syscalls")
    if not calls and syscalls is not None:
        # Asked for beside the packets: those on the sockets that are kept.
        from stratokit.record.specs import names_of

        found["calls"] = names_of(syscalls)
    return Planned(
        syscalls or ("default" if calls else "none"),
        Filter(**(found | {"calls": tuple(found["calls"])})),
        packets,
        packets or found["names_files"],
    )


def with_cpu_limit(options: RecordOptions, max_cpu: float | None, *, calls_named: bool) -> RecordOptions:
    """With what the recording may cost. Who names what is to be recorded, or while which command, gets it
    whatever that costs; who names nothing gets what the host can bear.
    """
    from stratokit.record.options import DEFAULT_BUSY_SHARE

    limits = options.limits
    if max_cpu is not None:
        limits = dataclasses.replace(limits, cpu=None if math.isinf(max_cpu) else max_cpu)
    elif not (
        calls_named
        or options.scope
        or options.command
        or options.filter.text
        or options.interfaces
        or options.tls
        or any(trigger.kind != "exit" for trigger in options.keep.triggers)
    ):
        limits = dataclasses.replace(limits, busy_share=DEFAULT_BUSY_SHARE)
    return dataclasses.replace(options, limits=limits)


def check_secrets(tls: bool, keylog: Path | None, redact: str | None, output: Path) -> None:
    """Refuse secrets where they cannot stay.

    Raises:
        UsageError: the output holds none, or they are to be taken away at once.
    """
    if (tls or keylog) and output.suffix != ".parquet":
        what = "plaintext of TLS is" if tls else "secrets of TLS are"
        raise UsageError(f"{what} kept in .parquet files, which {output.name} is not")
    if keylog and redact:
        raise UsageError("--redact takes secrets away, and --keylog adds some: choose one")


def key_log(path: Path | None) -> dict[str, Any]:
    """Where secrets come from, and what of it is there already."""
    if path is None:
        return {}
    try:
        size = path.stat().st_size if path.exists() else 0
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if path.exists() and not path.is_file():
        raise UsageError(f"--keylog takes a file, which {path} is not")
    if not path.parent.is_dir():
        raise UsageError(f"--keylog {path}: there is no folder {path.parent}")
    return {"keylog": str(path.resolve()), "keylog_offset": size}


def redaction(profiles: str | None, key: Path | None) -> str:
    """Profiles as they are handed on; the key goes to the conversions by the environment, not into a file."""
    if profiles is None:
        if key is not None:
            raise UsageError("--redact-key goes with --redact addresses")
        return ""
    from stratokit.engine import redact

    how = redact.redaction(profiles, key)
    os.environ[redact.KEY_VARIABLE] = how.key.hex()
    return ",".join(how.profiles)
