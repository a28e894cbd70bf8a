"""What a notebook or a script works with: `stratokit.open` and what it gives. No logic of its own."""

from __future__ import annotations

import builtins
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stratokit.engine import capture as engine
from stratokit.engine.convert import convert
from stratokit.engine.inputs import PathLike
from stratokit.reports.base import Options
from stratokit.reports.run import Result, run


class CaptureReport:
    """A report that shows itself in Jupyter and as text, and gives its sections as frames."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def __getitem__(self, name: str) -> pl.DataFrame:
        """The frame of a section."""
        return self.sections[name]

    @property
    def sections(self) -> dict[str, pl.DataFrame]:
        """Frames by name, of the sections that the capture can answer."""
        return {s.report.name: s.frame for s in self._result.sections if s.frame is not None}

    @property
    def losses(self) -> pl.DataFrame:
        """What was lost, cut or rejected."""
        return self._result.losses

    @property
    def facts(self) -> dict[str, Any]:
        """Files, host, time span and rows of the capture."""
        return self._result.facts

    def __str__(self) -> str:
        from rich.console import Console

        from stratokit.render.text import print_report

        out = io.StringIO()
        print_report(self._result, Console(file=out, width=160))
        return out.getvalue()

    def _repr_html_(self) -> str:
        from stratokit.render.html import fragments

        return "".join(fragments(self._result))

    def chart(self, name: str) -> Any:
        """An altair.Chart of the section `timeline`, `latency`, `slowest` or `heat`.

        Raises:
            UsageError: there is no such chart, nothing to draw, or the package altair is missing.
        """
        from stratokit.render.altair_charts import chart

        return chart(name, self.sections.get(name))

    def save(self, path: PathLike) -> None:
        """Write it as .html, .json or text, by the name's ending."""
        from stratokit.render import html, json

        with builtins.open(path, "w", encoding="utf-8") as out:
            if str(path).endswith(".json"):
                json.write_report(self._result, out)
            elif str(path).endswith(".html"):
                html.write_report(self._result, out)
            else:
                out.write(str(self))


class Capture(engine.Capture):
    """One or several capture files; see `stratokit.open`."""

    def _repr_html_(self) -> str:
        from stratokit.render.html import summary

        return summary(self.info(), self.filter_text, self.tables())

    def report(self, only: Sequence[str] = (), limit: int | None = None) -> CaptureReport:
        """All sections, or those named by `only`, with at most `limit` rows each."""
        return CaptureReport(run(self, only, Options(limit, pictures=True)))

    def export(self, path: PathLike) -> None:
        """Write the capture in the format of the name's ending, as convert does."""
        convert(self, Path(path))


def open(  # noqa: A001 - stratokit.open is the public name
    source: PathLike | Iterable[PathLike], keylog: PathLike | None = None
) -> Capture:
    """The capture in a file, several files, a folder, or what a pattern matches.

    `keylog` is a file of TLS secrets (SSLKEYLOGFILE), with which what is encrypted can be read.

    >>> import stratokit as sk
    >>> capture = sk.open("capture.parquet")  # doctest: +SKIP
    >>> capture.table("http").collect()  # doctest: +SKIP
    """
    return Capture.open(source, keylog)
