"""What becomes of decisions of `limits`: their words in the file, and what the user is told at the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

LEFT_OUT, BACK, NOTHING_MORE = "left out", "recorded again", "nothing more to leave out"


def sentences(rows: Collection[dict[str, Any]], clock: str) -> list[str]:
    """What the user is told of new rows, at the time `clock`."""
    found = []
    for action in (LEFT_OUT, NOTHING_MORE, BACK):
        told = [row for row in rows if row["action"] == action]
        if not told:
            continue
        what = " and ".join(row["step"] for row in told)
        if action == BACK:
            found.append(f"recorded again from {clock} on: {what}")
            continue
        row = told[0]
        if row["because"] == "disk":
            why = f"{row['used'] / 1e6:.0f} MB are written of --max-disk {row['allowed'] / 1e6:.0f} MB"
        else:
            used, allowed = f"{100 * row['used']:.0f} %", f"{100 * row['allowed']:.0f} %"
            why = f"recording costs {used} of a processor, more than {allowed}"
        rest = (
            "there is nothing more to leave out"
            if action == NOTHING_MORE
            else f"left out from {clock} on: {what}"
        )
        hint = " (--max-cpu none records all)" if row["because"] == "load" else ""
        found.append(f"{why}; {rest}{hint}")
    return found
