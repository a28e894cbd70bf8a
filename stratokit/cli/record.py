"""`stratokit record`: record until a time has passed, a command has ended, or Ctrl-C.

This process only records. The conversion runs in a fresh one, whose libraries would cost the recorder memory.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stratokit.cli import record_choices as choices
from stratokit.cli.rolling import keep as window
from stratokit.cli.rolling import rotation, span_ns
from stratokit.cli.values import (
    duration_ns,
    one_of,
    processor_share,
    size_bytes,
    size_or_none_bytes,
    user_id,
)
from stratokit.errors import StratokitError, UsageError

if TYPE_CHECKING:
    from stratokit.cli.status import StatusLine
    from stratokit.record.options import RecordOptions, Result


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
    filter_: str | None = typer.Option(
        None, "--filter", metavar="FILTER", help='Keep only what matches: "http", "ip.addr == 10.0.0.0/8".'
    ),
    dns_errors_only: bool = typer.Option(
        False, "--dns-errors-only", help="Of DNS keep only what failed or had no answer."
    ),
    latency: bool = typer.Option(
        False, "--latency", help="Show latencies at the end: of handshakes, and of each layer."
    ),
    explain: bool = typer.Option(
        False, "--explain", help="Show which part of --filter runs where, and record nothing."
    ),
    syscalls: str | None = typer.Option(
        None,
        metavar="WHICH",
        help="all, none, default, or names and groups: openat,network.  [default: default; "
        "none where --filter says nothing of system calls]",
    ),
    packets: bool = typer.Option(True, help="Record packets."),
    sockets: bool = typer.Option(True, help="Record what becomes of TCP sockets."),
    interface: list[str] | None = typer.Option(
        None,
        "-i",
        "--interface",
        metavar="NAME",
        help="Record packets as frames at this network device instead of at sockets; any for all devices.",
    ),
    netns: list[str] | None = typer.Option(
        None,
        metavar="NAME|PID|PATH",
        help="Network namespace of --interface: as ip netns names it, or of a process.  [default: the own]",
    ),
    drops: bool = typer.Option(True, help="Record which packets the kernel drops, why and where."),
    snaplen: int | None = typer.Option(
        None,
        metavar="BYTES",
        help="Cut packets at this length.  [default: 65535; with --interface 262144]",
    ),
    io_bytes: int = typer.Option(80, metavar="BYTES", help="Keep so much of what is read and written."),
    keylog: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Embed the TLS secrets that programs write there (SSLKEYLOGFILE) while it records.",
    ),
    redact: str | None = typer.Option(
        None,
        metavar="PROFILES",
        help="Take away from the file, with commas: headers, query, payload, addresses, arguments.",
    ),
    redact_key: Path | None = typer.Option(
        None, "--redact-key", metavar="FILE", help="Key for addresses: 32 bytes, or 64 hexadecimal digits."
    ),
    tls: bool = typer.Option(
        False, "--tls", help="Record what programs send and receive in TLS through OpenSSL, as plaintext."
    ),
    tls_bytes: int = typer.Option(
        "1M", metavar="SIZE", parser=size_bytes, help="With --tls: keep so much of each call of OpenSSL."
    ),
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
    rotate_time: int | None = typer.Option(
        None,
        metavar="TIME",
        parser=duration_ns,
        help="A new file after this time: OUT-000001-TIME.parquet, ...",
    ),
    rotate_size: int | None = typer.Option(
        None, metavar="SIZE", parser=size_bytes, help="A new file after so many bytes, before compression."
    ),
    rotate_count: int | None = typer.Option(None, metavar="N", min=1, help="Of these files keep the last N."),
    keep: int | None = typer.Option(
        None,
        metavar="TIME",
        parser=duration_ns,
        help="Flight recorder: hold the last TIME, and write a file only when triggered.",
    ),
    keep_size: int | None = typer.Option(
        None, metavar="SIZE", parser=size_bytes, help="Hold at most this.  [default: 2G, in memory 256M]"
    ),
    keep_in: str | None = typer.Option(
        None, metavar="disk|memory", callback=one_of("disk", "memory"), help="Where.  [default: disk]"
    ),
    before: int | None = typer.Option(
        None, metavar="TIME", parser=duration_ns, help="From before the trigger.  [default: all that is held]"
    ),
    after: int | None = typer.Option(
        None, metavar="TIME", parser=span_ns, help="From after the trigger.  [default: 5s]"
    ),
    trigger: list[str] | None = typer.Option(
        None, metavar="EXPR", help='What triggers by itself: "evt.latency > 2s", "proc.exit_code != 0", exit.'
    ),
    trigger_limit: int | None = typer.Option(
        None, metavar="N", min=1, help="At most so many files by --trigger.  [default: 20]"
    ),
    whole_host: bool = typer.Option(
        False, "--whole-host", help="With COMMAND: record everything while it runs, not it alone."
    ),
    max_cpu: float | None = typer.Option(
        None,
        metavar="PERCENT",
        parser=processor_share,
        help="Of one processor, as 20%, or none; beyond it events are left out.  "
        "[default: 8% of the time in which processors are busy, where nothing is named to be recorded]",
    ),
    max_memory: int | None = typer.Option(
        None,
        metavar="SIZE",
        parser=size_bytes,
        help="For recorder and kernel together; the buffer is made to fit.",
    ),
    max_disk: int | None = typer.Option(
        None,
        metavar="SIZE",
        parser=size_bytes,
        help="To be written; what costs most is left out as it fills.",
    ),
    min_free: int | None = typer.Option(
        None,
        metavar="SIZE",
        parser=size_or_none_bytes,
        help="End when less of the disk is free.  [default: 1 % of it, at most 256M]",
    ),
    user: int | None = typer.Option(
        None, metavar="USER", parser=user_id, help="Become this user once everything is attached."
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
      stratokit record --pod my-app --filter "http"
      stratokit record --filter "dns" --dns-errors-only
      stratokit record --filter "tcp.flags.syn==1" --latency
      stratokit record --filter "evt.failed == true and evt.latency > 10ms"
      stratokit record --interface eth0 --filter "arp or icmp"
      stratokit record --interface any --netns web --duration 1m
      stratokit record -o now.scap                   for sysdig and Stratoshark
      stratokit record --syscalls network,openat --buffer 256M
      stratokit record --max-cpu 20% --max-disk 2G   on a host that must not suffer
      stratokit record --max-cpu none                all of it, whatever it costs
      stratokit record --rotate-time 5m --rotate-count 12 -o day.parquet
      stratokit record --keep 10m --trigger "proc.exit_code != 0" -o flight.parquet
    """
    from stratokit.cli.status import StatusLine
    from stratokit.record.options import FRAME_BYTES_MOST, SNAPLEN_MOST, Limits, RecordOptions, Scope

    if whole_host and not command:
        raise UsageError("--whole-host goes with a command: stratokit record --whole-host -- COMMAND")
    if dns_errors_only:
        filter_ = filter_ or "dns"
    if explain:
        _explain(filter_)
        return
    rotated = rotation(rotate_size, rotate_time, rotate_count)
    kept = window(keep, keep_size, keep_in, before, after, trigger or [], trigger_limit)
    if rotated and kept:
        raise UsageError("--rotate-... writes everything, --keep only what is triggered: choose one")
    if kept and max_disk is not None:
        raise UsageError("of a window --keep-size is the limit, not --max-disk")
    output, spool = choices.files(output, force, bool(rotated or kept))
    choices.check_secrets(tls, keylog, redact, output)
    chosen = choices.planned(filter_, syscalls)
    options = RecordOptions(
        output=output,
        spool=spool,
        duration_ns=duration,
        snaplen=(FRAME_BYTES_MOST if interface else SNAPLEN_MOST) if snaplen is None else snaplen,
        interfaces=tuple(interface or ()),
        netns=tuple(netns or ()),
        drops=drops and chosen.packets,
        io_bytes=io_bytes,
        syscalls=chosen.syscalls,
        packets=packets and chosen.packets,
        sockets=sockets and chosen.sockets,
        filter=dataclasses.replace(chosen.filter, dns_errors_only=dns_errors_only),
        buffer_bytes=buffer,
        redact=choices.redaction(redact, redact_key),
        **choices.key_log(keylog),
        tls=tls,
        tls_bytes=tls_bytes,
        rotation=rotated,
        keep=kept,
        command=tuple(command or ()),
        limits=Limits(None, None, max_memory, max_disk, min_free),
        user=user,
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
    options = choices.with_cpu_limit(options, max_cpu, calls_named=syscalls is not None)
    from stratokit.record.guard import ENDED_EARLY
    from stratokit.record.session import record as run

    with StatusLine(sys.stderr, quiet, _began(options)) as line:
        result = run(options, line.update, line.say)
    if result.spool is None:
        _rolled(result, line)
        return
    _convert(result.spool, output, force)
    if not quiet:
        line.summary(result.status, output)
        if result.exit_code:
            line.say(f"{options.command[0]} ended with exit code {result.exit_code}.")
    if sections := _sections(filter_, dns_errors_only, latency):
        _report(output, sections)
    if sentence := ENDED_EARLY.get(result.reason):
        raise StratokitError(f"{sentence}: the recording ended before its time")


def _rolled(result: Result, line: StatusLine) -> None:
    """The end of a recording in segments."""
    from stratokit.record.guard import ENDED_EARLY

    line.rolled(result.status, result.outputs)
    if sentence := ENDED_EARLY.get(result.reason):
        raise StratokitError(f"{sentence}: the recording ended before its time")


# What a filter asks about, by the protocol of its fields, and the section that answers.
_ANSWERS = {"http": "http", "http2": "http", "grpc": "http", "dns": "dns", "tls": "tls", "evt": "syscalls"}


def _sections(text: str | None, dns_errors_only: bool, latency: bool) -> list[str]:
    """Sections of the report that answer what was recorded for."""
    from stratokit.filters import tree
    from stratokit.filters.parse import parse

    fields = tree.fields(parse(text)) if text else frozenset()
    protocols = {name.partition(".")[0] for name in fields}
    found = {section for protocol, section in _ANSWERS.items() if protocol in protocols}
    if dns_errors_only:
        found = found - {"dns"} | {"dns_errors"}
    if latency:
        # SYNs alone tell of handshakes, and nothing of other layers.
        found |= {"handshakes"} if protocols == {"tcp"} else {"handshakes", "latency"}
    return sorted(found)


def _report(output: Path, sections: list[str]) -> None:
    if output.suffix != ".parquet":
        return
    sys.stdout.flush()
    argv = [sys.executable, "-m", "stratokit", "report", str(output), "--only", ",".join(sections)]
    subprocess.run(argv, check=False)


def _explain(text: str | None) -> None:
    from stratokit.engine.recording_filter import explain, plan

    if text is None:
        raise UsageError("--explain shows what becomes of --filter; give one")
    found = plan(text)
    rows = [("part", "of", "decided"), *explain(found)]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    for row in rows:
        typer.echo(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}")


def _began(options: RecordOptions) -> str:
    from stratokit.render import units

    ends = [f"{units.duration(options.duration_ns)} have passed"] if options.duration_ns else []
    ends += [f"{options.command[0]} ends"] if options.command else []
    if options.keep:
        return f"holding what happens until {' or '.join([*ends, 'Ctrl-C'])}; stratokit trigger writes it"
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
