"""`stratokit convert`: from one format to another."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stratokit.errors import UsageError

if TYPE_CHECKING:
    from stratokit.engine.redact import Redaction


def convert(
    paths: list[Path] = typer.Argument(
        metavar="IN... OUT", help="Captures, and last the file to write: .parquet, .pcapng, .pcap or .scap."
    ),
    where: str | None = typer.Option(
        None, metavar="FILTER", help="Only what matches, and what it takes to read it (as record --filter)."
    ),
    force: bool = typer.Option(False, "--force", help="Replace an existing output file."),
    scap_profile: str | None = typer.Option(
        None,
        "--scap-profile",
        metavar="NAME",
        help="universal: for sysdig of every version, Falco and Stratoshark (default); modern: exits only.",
    ),
    with_events: bool = typer.Option(
        False,
        "--with-events",
        help="Into .pcapng also system calls and socket events, which Wireshark lists among the packets.",
    ),
    embed_keys: Path | None = typer.Option(
        None,
        "--embed-keys",
        metavar="KEYLOG",
        help="TLS secrets (SSLKEYLOGFILE) that OUT shall carry, for us and for Wireshark.",
    ),
    strip_keys: bool = typer.Option(
        False, "--strip-keys", help="Leave out all secrets that IN carries; what is encrypted stays so."
    ),
    redact: str | None = typer.Option(
        None,
        metavar="PROFILES",
        help="Take away what OUT shall not tell: headers, query, payload, addresses, arguments; with commas.",
    ),
    redact_key: Path | None = typer.Option(
        None,
        "--redact-key",
        metavar="FILE",
        help="32 bytes, or 64 hexadecimal digits: the same key hides addresses alike in every file.",
    ),
    remove_input: bool = typer.Option(False, "--remove-input", hidden=True),
) -> None:
    """Convert captures to another format.

    The format of OUT follows from its name.

    \b
    Examples:
      stratokit convert now.parquet now.pcapng       for Wireshark, with processes
      stratokit convert now.parquet now.pcapng --with-events
      stratokit convert now.parquet now.scap         for sysdig and Stratoshark
      stratokit convert trace.pcap trace.parquet
      stratokit convert day.parquet one.pcapng --where 'ip.addr == 10.0.0.7 && tcp.port == 443'
      stratokit convert tls.pcap tls.pcapng --embed-keys keys.log
      stratokit convert now.parquet public.pcapng --redact addresses,headers
      stratokit convert left.spool saved.parquet     what a killed recorder left behind
    """
    from stratokit.cli.output import compiling, progress
    from stratokit.cli.values import free_output
    from stratokit.engine import convert as engine

    if len(paths) < 2:
        raise UsageError("convert takes a file to read and a file to write: stratokit convert IN OUT")
    *inputs, output = paths
    engine.check_output(output)
    if scap_profile not in (None, *engine.SCAP_PROFILES):
        raise UsageError(f"--scap-profile is one of {', '.join(engine.SCAP_PROFILES)}, not {scap_profile}")
    if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
        raise UsageError(f"{output} is to be read and written at once")
    free_output(output, force)
    # The recorder, which is to say nothing that is no fact of the recording, converts with remove_input.
    first_use = contextlib.nullcontext() if remove_input else compiling()
    with progress(f"writing {output.name}") as report, first_use:
        choices = engine.Choices(
            scap_profile,
            with_events,
            embed_keys,
            strip_keys,
            redaction=_redaction(redact, redact_key),
            where=where,
        )
        lost = engine.convert_files(inputs, output, report, choices)
    _tell(lost, remove_input)
    if where is not None and not _holds_anything(output):
        typer.echo(f"nothing in {', '.join(map(str, inputs))} matches {where}", err=True)
    if remove_input:
        for path in inputs:
            path.unlink()


def _holds_anything(output: Path) -> bool:
    """Whether the file has any rows that a filter asks for."""
    import stratokit

    rows = stratokit.open(output).info()["rows"]
    return any(rows.get(kind) for kind in ("packet", "syscall", "drop"))


def _redaction(profiles: str | None, key: Path | None) -> Redaction | None:
    if profiles is None:
        if key is not None:
            raise UsageError("--redact-key goes with --redact addresses")
        return None
    from stratokit.engine.redact import redaction

    return redaction(profiles, key)


def _tell(lost: dict[str, int], after_recording: bool) -> None:
    """Say what is missing; after a recording only what the recorder could not know."""
    from stratokit.render import units
    from stratokit.schema import load

    for name, amount in lost.items():
        counter = load.counters().get(name)
        if counter is not None and counter.loss and (counter.where == "convert" or not after_recording):
            typer.echo(f"lost: {units.number(amount)} {counter.doc}", err=True)
