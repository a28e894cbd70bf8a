"""Arguments and options that mean the same in every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stratokit.cli.values import one_of

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="IN...", help="Capture files, folders or patterns; - for what a pipe brings."),
]
Where = Annotated[str | None, typer.Option(metavar="FILTER", help="Only what matches this filter.")]
ReportFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        callback=one_of("text", "json", "html"),
        help="text, json or html; without it, what the name of -o says, else text.",
    ),
]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output file.")]
KeyLog = Annotated[
    Path | None,
    typer.Option(
        "--keylog", metavar="FILE", help="TLS secrets (SSLKEYLOGFILE): what is inside becomes rows too."
    ),
]
