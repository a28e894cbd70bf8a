"""`python -m stratokit.cli.convert_jobs`: converts for a recorder that goes on, a line of JSON a job.

A line has `inputs` (segments of one recording), `output` and `since_ns`; the answer is a line with `error`,
which is empty when the file is there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def _convert(job: dict[str, Any]) -> str:
    from stratokit.engine.convert import Choices, convert_files
    from stratokit.errors import StratokitError

    try:
        inputs = [Path(path) for path in job["inputs"]]
        convert_files(inputs, Path(job["output"]), None, Choices(since_ns=job["since_ns"]))
    except (StratokitError, OSError) as error:
        return str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001 the recorder keeps the segments and says why
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    """Serve until the recorder closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        answer = json.dumps({"error": _convert(json.loads(line))}).encode() + b"\n"
        try:
            os.write(sys.stdout.fileno(), answer)
        except BrokenPipeError:
            return  # the recorder was killed; the next one finds the file


if __name__ == "__main__":
    main()
