"""The program `stratokit`: its verbs, and what becomes of errors. Heavy modules load inside the verbs."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn

import typer

from stratokit import __version__
from stratokit.cli.convert import convert
from stratokit.cli.diff import diff
from stratokit.cli.doctor import doctor
from stratokit.cli.fields import fields
from stratokit.cli.follow import follow
from stratokit.cli.info import info
from stratokit.cli.parameters import Command, Group
from stratokit.cli.record import record
from stratokit.cli.report import ReportCommand, report
from stratokit.cli.table import table
from stratokit.cli.trigger import trigger
from stratokit.errors import StratokitError, UsageError

FAILED, USAGE = 1, 2

app = typer.Typer(
    name="stratokit",
    cls=Group,
    no_args_is_help=True,
    # Plain help keeps the examples as they are written, and a terminal of any width can show it.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (record, trigger, report, diff, info, table, follow, convert, fields, doctor):
    app.command(cls=ReportCommand if verb is report else Command)(verb)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stratokit {__version__}")
        raise typer.Exit


@app.callback()
def stratokit(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Record what a Linux host does with eBPF during an incident; analyse the capture afterwards, anywhere.

    \b
    Examples:
      stratokit doctor                               can this host record?
      stratokit record --duration 30s -o now.parquet
      stratokit report now.parquet
      stratokit table http now.parquet --where 'http.response.code >= 500'
    """


def main() -> None:
    """Run the program and exit, as `run` says."""
    _end(run())


def run() -> int:
    """Run the program: 0 done, 1 failed, 2 wrong usage; messages on stderr, no traceback."""
    # A name from a capture may hold what the terminal's encoding cannot write.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return _quietly(_run())


def _end(code: int) -> NoReturn:
    """Exit; taking libraries of data frames apart would take as long as loading them."""
    others = [thread for thread in threading.enumerate() if not thread.daemon]
    if "polars" not in sys.modules or len(others) > 1:
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(code)


def _run() -> int:
    try:
        app()
    except UsageError as error:
        return _fail(error, USAGE)
    except StratokitError as error:
        return _fail(error, FAILED)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}", FAILED)
    return 0


def _fail(message: object, code: int) -> int:
    sys.stderr.write(f"stratokit: {message}\n")
    return code


def _quietly(code: int) -> int:
    """Flush; a reader that went away, as `head` does, is no error worth a message."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code
