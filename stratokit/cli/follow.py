"""`stratokit follow`: what both sides of a TCP connection said to each other."""

from __future__ import annotations

from pathlib import Path

import typer

from stratokit.cli.arguments import Force, Output
from stratokit.errors import UsageError


def follow(
    input_: Path = typer.Argument(metavar="IN", help="Capture file, folder or pattern."),
    flow: int = typer.Argument(metavar="FLOW", min=0, help="Number of the conversation, its flow_id."),
    raw: bool = typer.Option(False, "--raw", help="Bytes as hexadecimal digits, a line a packet."),
    hex_: bool = typer.Option(False, "--hex", help="Bytes with offsets, as numbers and characters."),
    text: bool = typer.Option(False, "--text", help="Characters, others as dots.  [default]"),
    output: Output = None,
    force: Force = False,
) -> None:
    """Show the bytes of a TCP connection as they could be read, in the form of Wireshark's "follow stream".

    \b
    Examples:
      stratokit follow now.parquet 17
      stratokit follow now.parquet 17 --raw
    """
    from stratokit.cli.output import opened, reading, text_output, warn_of_damage
    from stratokit.render import units
    from stratokit.render.follow import lines
    from stratokit.schema import load

    chosen = [name for name, given in (("raw", raw), ("hex", hex_), ("text", text)) if given] or ["text"]
    if len(chosen) > 1:
        raise UsageError("--raw, --hex and --text exclude each other")
    with reading():
        capture = opened([input_])
        stream = capture.stream(flow)
    with text_output(output, force=force) as file:
        file.writelines(line + "\n" for line in lines(stream, chosen[0]))
    for name, amount in stream.losses.items():
        typer.echo(f"lost: {units.number(amount)} {load.counters()[name].doc}", err=True)
    warn_of_damage(capture)
