"""Sentences about the steps that a recording took to stay within its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stratokit.render import units

if TYPE_CHECKING:
    from stratokit.reports.run import Section

_OPTIONS = {
    "cpu": "--max-cpu",
    "load": "the host's load (--max-cpu none records all)",
    "memory": "--max-memory",
    "disk": "--max-disk",
}
SPANS_MOST = 3
# Tables that are made of system calls, or tell more with them.
_OF_CALLS = {"syscalls", "latency"}


def note(section: Section, facts: dict[str, Any]) -> str:
    """What is to be said of a section: why there is none, or when what it is made of was left out."""
    needed = {*section.report.needs, *section.report.uses()}
    return section.note or (_times_without_calls(facts.get("limits") or []) if needed & _OF_CALLS else "")


def _times_without_calls(steps: list[dict[str, Any]]) -> str:
    spans = [
        f"{step['step']} from {_clock(step['ts'])} {_end(steps[index:], step)}"
        for index, step in enumerate(steps)
        if step["step"] in ("busy system calls", "system calls") and step["action"] == "left out"
    ]
    more = f", and {len(spans) - SPANS_MOST} times more" if len(spans) > SPANS_MOST else ""
    return f"left out to spare the host: {'; '.join(spans[:SPANS_MOST])}{more}" if spans else ""


def limit_lines(steps: list[dict[str, Any]]) -> list[str]:
    """One a step: what was left out, from when to when, and why."""
    lines = []
    for index, step in enumerate(steps):
        if step["action"] == "recorded again":
            continue
        what = step["step"] + (f" ({', '.join(step['calls'])})" if step["calls"] else "")
        text = f"{what} {step['action']}".strip()
        if step["action"] == "left out":
            text = f"{text} from {_clock(step['ts'])} {_end(steps[index:], step)}"
        else:
            text = f"{text} at {_clock(step['ts'])}"
        lines.append(f"{text}, because of {_OPTIONS.get(step['because'], step['because'])}: {_used(step)}")
    return lines


def _end(later: list[dict[str, Any]], step: dict[str, Any]) -> str:
    back = (s for s in later if s["step"] == step["step"] and s["action"] == "recorded again")
    return next((f"to {_clock(s['ts'])}" for s in back), "to the end")


def _clock(ns: int) -> str:
    return units.moment(ns)[11:23]


def _used(step: dict[str, Any]) -> str:
    if step["because"] in ("cpu", "load"):
        return f"{100 * step['used']:.0f} % of a processor were used, {100 * step['allowed']:.0f} % allowed"
    return f"{units.size(int(step['used']))}, allowed {units.size(int(step['allowed']))}"
