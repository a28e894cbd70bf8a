"""`record --trigger EXPR`: a filter on one kind of events, decided in the kernel, or how often it is true.

    EXPR = "exit" | FILTER | "rate(" FILTER ")" ">" NUMBER "/" TIME

A FILTER names fields of system calls (evt.*, proc.*), of TCP sockets (socket.*, tcp.port, ip.addr,
tcp.analysis.retransmission) or of the end of processes (proc.exit_code). All of it has to be decided where
the event happens: a trigger that came true only when the capture is converted would come too late.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from stratokit.engine.recording_filter import call_test, check
from stratokit.errors import UsageError
from stratokit.filters import kernel, literals, tree
from stratokit.filters.parse import parse
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Iterable

_RATE = re.compile(r"\s*rate\s*\((?P<test>.*)\)\s*>\s*(?P<number>\d+)\s*/\s*(?P<time>\w+)\s*", re.DOTALL)
_UNITS = ("ms", "s", "m", "h")
EXIT = "exit"


def trigger(text: str) -> dict[str, Any]:
    """Arguments of `record.options.Trigger`.

    Raises:
        UsageError: it is wrong, or cannot be decided while recording.
    """
    if text.strip() == EXIT:
        return {"text": EXIT, "kind": EXIT}
    found: dict[str, Any] = {"text": text, "more_than": 0, "within_ns": 0}
    if match := _RATE.fullmatch(text):
        time = match["time"]
        within_ns = literals.duration_ns(f"1{time}" if time in _UNITS else time)
        if not within_ns:
            raise UsageError(f"a rate is as 50/s, 10/m or 5/10s, not {match['number']}/{time}")
        found |= {"more_than": int(match["number"]), "within_ns": within_ns}
        text = match["test"]
    elif re.match(r"\s*rate\s*\(", text):
        raise UsageError(f"a rate is as rate(...) > 50/s, not {text}")
    return found | _compiled(text, parse(text))


def _of(calls: Iterable[str], names: list[str]) -> str:
    """C that is true for these system calls and no others."""
    numbers = {call.name: call.number for call in load.syscalls("x86_64").values()}
    chosen = set(calls)
    others = [name for name in names if name not in chosen]
    if not others:
        return ""
    few = others if len(others) < len(chosen) else sorted(chosen)
    either = " || ".join(f"c->nr == {numbers[name]}" for name in few)
    return f"{'!' if few is others else ''}({either}) && "


def _compiled(text: str, test: tree.Test) -> dict[str, Any]:
    names = sorted(call.name for call in load.syscalls("x86_64").values())
    calls, _ = kernel.calls(test, names)
    if calls and all(bound.exact for bound in calls.values()):
        test_of_each = call_test(calls) or "1"
        return {"kind": "call", "test": f"{_of(calls, names)}({test_of_each})", "calls": tuple(calls)}
    for kind, bound in (("socket", kernel.sockets(test)), ("process", kernel.exits(test))):
        if bound.exact and bound.test not in (kernel.ALWAYS, kernel.NEVER):
            return {"kind": kind, "test": bound.test}
    fields = tree.fields(test)
    for table, known in (("processes", kernel.EXIT_FIELDS), ("sockets", kernel.SOCKET_FIELDS)):
        if fields & (known.keys() - kernel.CALL_FIELDS.keys() - {"evt.type"}):
            check(test, text, [table])  # which says what is wrong with it
            break
    else:
        check(test, text, ["syscalls"])
    known_fields = sorted({*kernel.CALL_FIELDS, *kernel.SOCKET_FIELDS, *kernel.EXIT_FIELDS})
    raise UsageError(
        f"--trigger {text!r} cannot be decided where events happen; it may name, of one kind of events, "
        f"{', '.join(known_fields)}"
    )
