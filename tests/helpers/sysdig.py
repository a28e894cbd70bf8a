"""What sysdig says about a scap file, a row an event."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import polars as pl

SYSDIG = shutil.which("sysdig")
_MARK = "\x1f"
NUMBERS = ("evt.num", "evt.rawtime", "evt.latency", "thread.tid", "proc.pid", "fd.num", "fd.sport")


def events(path: Path, *fields: str, program: tuple[str, ...] = ("sysdig",)) -> pl.DataFrame:
    """A row an event that sysdig shows; `<NA>` is null. Fails where sysdig reports an error."""
    names = ("evt.num", *fields)
    form = "*" + _MARK.join(f"%{name}" for name in names) + _MARK
    done = subprocess.run(
        [*program, "-r", str(path), "-p", form], capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr.strip(), done.stderr.decode()
    cells = done.stdout.decode("utf-8", "replace").split(_MARK)
    width = len(names)
    columns = {
        name: [cell.lstrip("\n") if n == 0 else cell for cell in cells[n : len(cells) - 1 : width]]
        for n, name in enumerate(names)
    }
    frame = pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))
    frame = frame.with_columns(pl.all().replace("<NA>", None))
    return frame.with_columns(pl.col(name).cast(pl.Int64) for name in names if name in NUMBERS)
