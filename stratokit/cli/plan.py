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
    found: dict[str, Any] = _asked(text)
    return found


def triggers(texts: list[str]) -> list[dict[str, Any]]:
    """Arguments of `record.options.Trigger` for each expression.

    Raises:
        UsageError: one is wrong, or cannot be decided while recording.
    """
    found: list[dict[str, Any]] = _asked("--triggers", *texts)
    return found


def _asked(*arguments: str) -> Any:
    argv = [sys.executable, "-m", "stratokit.cli.plan", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout)
    message = done.stderr.strip().removeprefix("stratokit: ")
    raise (UsageError if done.returncode == 2 else StratokitError)(message)


def main() -> None:
    """Print the plan of the filter that is the only argument, or of the triggers after --triggers."""
    from stratokit.engine.recording_filter import plan
    from stratokit.engine.trigger_plan import trigger

    try:
        if sys.argv[1] == "--triggers":
            json.dump([trigger(text) for text in sys.argv[2:]], sys.stdout)
            return
        found = plan(sys.argv[1])
    except UsageError as error:
        sys.stderr.write(f"stratokit: {error}\n")
        sys.exit(2)
    kinds = {"packets": found.packets is not None, "syscalls": found.syscalls is not None}
    json.dump(found.settings() | kinds, sys.stdout)


if __name__ == "__main__":
    main()
