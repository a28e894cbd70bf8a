"""Sentences about the steps that a recording took to stay within its limits."""

from __future__ import annotations

from typing import Any

from stratokit.render import units

_OPTIONS = {"cpu": "--max-cpu", "memory": "--max-memory", "disk": "--max-disk"}


def limit_lines(steps: list[dict[str, Any]]) -> list[str]:
    """One a step: what was left out, from when to when, and why."""
    lines = []
    for index, step in enumerate(steps):
        if step["action"] == "recorded again":
            continue
        what = step["step"] + (f" ({', '.join(step['calls'])})" if step["calls"] else "")
        text = f"{what} {step['action']}".strip()
        if step["action"] == "left out":
            back = [s for s in steps[index:] if s["step"] == step["step"] and s["action"] == "recorded again"]
            end = f"to {_clock(back[0]['ts'])}" if back else "to the end"
            text = f"{text} from {_clock(step['ts'])} {end}"
        else:
            text = f"{text} at {_clock(step['ts'])}"
        lines.append(f"{text}, because of {_OPTIONS.get(step['because'], step['because'])}: {_used(step)}")
    return lines


def _clock(ns: int) -> str:
    return units.moment(ns)[11:23]


def _used(step: dict[str, Any]) -> str:
    if step["because"] == "cpu":
        return f"{100 * step['used']:.0f} % of a processor were used, {100 * step['allowed']:.0f} % allowed"
    return f"{units.size(int(step['used']))}, allowed {units.size(int(step['allowed']))}"
