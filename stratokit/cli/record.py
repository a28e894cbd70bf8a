"""`stratokit record`: record until a time has passed, a command has ended, or Ctrl-C.

This process only records. The conversion runs in a fresh one, whose libraries would cost the recorder memory.
"""

from __future__ import annotations

import datetime as dt
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stratokit.cli.values import duration_ns, free_output, size_bytes, user_id
from stratokit.errors import StratokitError, UsageError

if TYPE_CHECKING:
    from stratokit.record.options import RecordOptions


def record(
    command: list[str] | None = typer.Argument(
        None, metavar="[-- COMMAND...]", help="Run this and record until it ends."
    ),
    output: Path | None = typer.Option(
        None, "-o", "--output", metavar="FILE", help="Capture to write.  [default: HOST-TIME.parquet]"
    ),
    duration: int | None = typer.Option(
        None, metavar="TIME", parser=duration_ns, help="Record for this long, as 30s, 5m; else until Ctrl-C."
    ),
    syscalls: str = typer.Option(
        "default", metavar="WHICH", help="all, none, default, or names and groups: openat,network."
    ),
    packets: bool = typer.Option(True, help="Record packets."),
    sockets: bool = typer.Option(True, help="Record what becomes of TCP sockets."),
    snaplen: int = typer.Option(65535, metavar="BYTES", help="Cut packets at this length."),
    io_bytes: int = typer.Option(80, metavar="BYTES", help="Keep so much of what is read and written."),
    buffer: int = typer.Option(
        "64M", metavar="SIZE", parser=size_bytes, help="Kernel buffer; larger ones survive larger bursts."
    ),
    pid: list[int] | None = typer.Option(
        None, "--pid", metavar="N", min=1, help="Only this process and what it starts."
    ),
    comm: list[str] | None = typer.Option(None, metavar="NAME", help="Only processes of this name."),
    uid: list[int] | None = typer.Option(
        None, metavar="USER", parser=user_id, help="Only processes of this user, by number or name."
    ),
    cgroup: list[str] | None = typer.Option(None, metavar="PATH", help="Only processes in this cgroup."),
    container: list[str] | None = typer.Option(
        None, metavar="ID|NAME", help="Only this container, by the start of its id or by name."
    ),
    pod: list[str] | None = typer.Option(
        None, metavar="NAME", help="Only this Kubernetes pod, or all pods of the workload NAME."
    ),
    namespace: list[str] | None = typer.Option(
        None, metavar="NAME", help="Only the pods of this Kubernetes namespace."
    ),
    whole_host: bool = typer.Option(
        False, "--whole-host", help="With COMMAND: record everything while it runs, not it alone."
    ),
    force: bool = typer.Option(False, "--force", help="Replace an existing output file."),
    quiet: bool = typer.Option(False, "--quiet", help="Say nothing but errors."),
) -> None:
    """Record what this host does, with eBPF.

    Packets, TCP sockets, system calls and processes go to one capture file. Options that choose (--pid to
    --namespace, COMMAND) may stand together and several times: what one of them names is recorded, and
    nothing of any other process.

    \b
    Examples:
      stratokit record --duration 30s -o now.parquet
      stratokit record -o curl.parquet -- curl -s http://shop.example/
      stratokit record --pod my-app --duration 1m
      stratokit record --comm nginx --uid postgres
      stratokit record -o now.scap                   for sysdig and Stratoshark
      stratokit record --syscalls network,openat --buffer 256M
    """
    from stratokit.cli.status import StatusLine
    from stratokit.record.options import RecordOptions, Scope

    if whole_host and not command:
        raise UsageError("--whole-host goes with a command: stratokit record --whole-host -- COMMAND")
    output = output or Path(f"{platform.node()}-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.parquet")
    if output.suffix not in (".parquet", ".scap"):
        raise UsageError(
            f"a recording is a .parquet or .scap file, not {output.name}; convert makes others of it"
        )
    free_output(output, force)
    spool = output.with_suffix(".spool")
    if spool.exists():
        from stratokit.formats.spool import is_being_written

        if is_being_written(spool):
            raise StratokitError(f"{spool} is being written by another recording; choose another -o")
        raise StratokitError(
            f"{spool} is left from an earlier recording; "
            f"save it with 'stratokit convert {spool} OUT.parquet', or remove it"
        )
    options = RecordOptions(
        output=output,
        spool=spool,
        duration_ns=duration,
        snaplen=snaplen,
        io_bytes=io_bytes,
        syscalls=syscalls,
        packets=packets,
        sockets=sockets,
        buffer_bytes=buffer,
        command=tuple(command or ()),
        scope=Scope(
            pids=tuple(pid or ()),
            comms=tuple(comm or ()),
            uids=tuple(uid or ()),
            cgroups=tuple(cgroup or ()),
            containers=tuple(container or ()),
            pods=tuple(pod or ()),
            namespaces=tuple(namespace or ()),
            command=bool(command) and not whole_host,
        ),
    )
    from stratokit.record.session import DISK_FULL
    from stratokit.record.session import record as run

    with StatusLine(sys.stderr, quiet, _began(options)) as line:
        result = run(options, line.update)
    _convert(result.spool, output, force)
    if not quiet:
        line.summary(result.status, output)
        if result.exit_code:
            line.say(f"{options.command[0]} ended with exit code {result.exit_code}.")
    if result.reason == DISK_FULL:
        raise StratokitError("the disk is full: the recording ended before its time")


def _began(options: RecordOptions) -> str:
    from stratokit.render import units

    ends = [f"{units.duration(options.duration_ns)} have passed"] if options.duration_ns else []
    ends += [f"{options.command[0]} ends"] if options.command else []
    until = f"until {' or '.join(ends)}, or Ctrl-C" if ends else "until Ctrl-C"
    return f"recording {until}"


def _convert(spool: Path, output: Path, force: bool) -> None:
    arguments = [sys.executable, "-m", "stratokit", "convert", str(spool), str(output), "--remove-input"]
    try:
        code = subprocess.run([*arguments, *(["--force"] if force else [])], check=False).returncode
    except KeyboardInterrupt:
        code = 130
    if code:
        sys.stderr.write(
            f"stratokit: the recording is kept in {spool}; later: stratokit convert {spool} {output}\n"
        )
        raise typer.Exit(code)
