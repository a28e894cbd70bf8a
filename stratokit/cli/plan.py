"""`python -m stratokit.cli.plan FILTER`: the kernel's part of a filter as JSON, for the recorder.

A process of its own: the libraries that know all fields would cost the recorder memory for as long as it
records.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from stratokit.errors import StratokitError, UsageError


def settings(text: str) -> dict[str, Any]:
    """Arguments of `record.options.Filter`, and `packets` and `syscalls`: whether the filter says anything of
    these.

    Raises:
        UsageError: the filter is wrong, with the place and the nearest field.
    """
    argv = [sys.executable, "-m", "stratokit.cli.plan", text]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    message = done.stderr.strip().removeprefix("stratokit: ")
    raise (UsageError if done.returncode == 2 else StratokitError)(message)


def main() -> None:
    """Print the plan of the filter that is the only argument."""
    from stratokit.engine.recording_filter import plan

    try:
        found = plan(sys.argv[1])
    except UsageError as error:
        sys.stderr.write(f"stratokit: {error}\n")
        sys.exit(2)
    kinds = {"packets": found.packets is not None, "syscalls": found.syscalls is not None}
    json.dump(found.settings() | kinds, sys.stdout)


if __name__ == "__main__":
    main()
