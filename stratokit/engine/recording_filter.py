"""`record --filter`: which part of the filter the kernel decides, and what of a recording is kept afterwards.

A filter is taken apart by kind: what it says of packets and conversations, and what it says of system calls.
A row has to match the part of its kind, in which tests of fields that the kind does not have are false, as
everywhere in this language. Kinds of which it says nothing are not recorded.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from stratokit.engine.capture import Where
from stratokit.engine.fields import catalogue, elsewhere, known_names, uses
from stratokit.engine.tables import entries
from stratokit.filters import kernel, tree
from stratokit.filters.compile import compile_tree
from stratokit.filters.errors import FilterError
from stratokit.filters.parse import parse
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Iterable

# Fields of packets that take more than the packet itself to know.
_CONTEXT = ("tcp.analysis.", "frame.number", "frame.time_")
_FILES = ("fd.", "fs.", "evt.args")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What a filter says of one kind of rows; `context`: the kernel has to keep whole conversations."""

    where: Where
    bound: kernel.Bound
    conversations: bool = False
    context: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A filter taken apart. `calls` has for each system call that may match what the kernel asks of it."""

    text: str
    packets: Part | None
    syscalls: Part | None
    calls: dict[str, kernel.Bound]

    def settings(self) -> dict[str, Any]:
        """The arguments of `record.options.Filter`."""
        names_files = self.syscalls is not None and any(
            name.startswith(_FILES) for name in self.syscalls.where.fields
        )
        packet_test = self.packets.bound.test if self.packets else ""
        return {
            "text": self.text,
            "packet_test": packet_test,
            "conversations": "p->http" in packet_test or "p->dns" in packet_test,
            "call_test": call_test(self.calls),
            "calls": tuple(self.calls),
            "names_files": names_files,
        }


def plan(text: str) -> Plan:
    """Take a filter apart.

    Raises:
        FilterError: it is wrong, with the place and the nearest field, or says nothing of what is recorded.
    """
    test = parse(text)
    fields = tree.fields(test) & known_names()
    of_packets = {name for table in flow_tables() for name in uses(table)}
    packets, syscalls = (_projected(test, names) for names in (of_packets, uses("syscalls").keys()))
    if not fields & (of_packets | uses("syscalls").keys()):
        check(test, text, ["packets"])
        reason = "a recording is filtered by packets, conversations and system calls; this names none of them"
        raise FilterError(reason, text, test.at, test.end)
    packet_part = None
    if not isinstance(packets, bool):
        where = Where(text, packets)
        fitting = [name for name in flow_tables() if where.fields <= uses(name).keys()]
        check(packets, text, fitting or ["packets"])
        own = uses("packets")
        whole = not all(name in own and not own[name].table for name in where.fields)
        context = whole or any(name.startswith(_CONTEXT) for name in where.fields)
        packet_part = Part(where, kernel.packets(packets, context), whole, context)
    call_part = None
    calls: dict[str, kernel.Bound] = {}
    if not isinstance(syscalls, bool):
        where = Where(text, syscalls)
        check(syscalls, text, ["syscalls"])
        names = sorted(call.name for call in load.syscalls("x86_64").values())
        calls, bound = kernel.calls(syscalls, names)
        call_part = Part(where, bound)
    return Plan(text, packet_part, call_part, calls)


@functools.cache
def flow_tables() -> tuple[str, ...]:
    """Tables that tell of conversations; packets last, because rows that are made of them are fewer."""
    names = [
        n for n, e in entries().items() if "flow_id" in e.columns and not e.table.costly and n != "packets"
    ]
    return (*names, "packets")


def check(test: tree.Test, text: str, tables: Iterable[str]) -> None:
    """Refuse a filter that none of these tables can be asked; raises FilterError."""
    for name in tables:
        compile_tree(test, text, catalogue(name), elsewhere(name))


def _projected(node: tree.Test, names: Iterable[str]) -> tree.Test | bool:
    """`node` with tests of fields beyond `names` as false; a bool where nothing else is left."""
    match node:
        case tree.Not(test=inner):
            found = _projected(inner, names)
            return not found if isinstance(found, bool) else tree.Not(found, node.at, node.end)
        case tree.Logic(operator=operator, tests=tests):
            parts = [_projected(test, names) for test in tests]
            left = [part for part in parts if not isinstance(part, bool)]
            constants = [part for part in parts if isinstance(part, bool)]
            if operator == "and" and False in constants:
                return False
            if operator == "or" and True in constants:
                return True
            odd = operator == "xor" and sum(constants) % 2 == 1
            if not left:
                return odd if operator == "xor" else operator == "and"
            joined = left[0] if len(left) == 1 else tree.Logic(operator, tuple(left), node.at, node.end)
            return tree.Not(joined, node.at, node.end) if odd else joined
    known = tree.fields(node) & known_names()
    return node if known <= set(names) else False


def call_test(calls: dict[str, kernel.Bound]) -> str:
    """C for all calls: one test where all have the same, else by number."""
    numbers = {call.name: call.number for call in load.syscalls("x86_64").values()}
    groups: dict[str, list[int]] = {}
    for name, bound in calls.items():
        groups.setdefault(bound.test or "1", []).append(numbers[name])
    if not groups:
        return ""
    rest = max(groups, key=lambda test: len(groups[test]))
    text = f"({rest})"
    for test, members in groups.items():
        if test != rest:
            of_these = " || ".join(f"c->nr == {number}" for number in members)
            text = f"(({of_these}) ? ({test}) : {text})"
    return "" if text == "(1)" else text


def explain(found: Plan) -> list[tuple[str, str, str]]:
    """(what, where, how) of each part: what the kernel decides and what is left for the conversion."""
    rows: list[tuple[str, str, str]] = []
    if found.packets is not None:
        part = found.packets
        for node in _conjuncts(part.where.test):
            bound = kernel.packets(node, part.context)
            rows.append((_shown(found.text, node), "packets", _place(bound)))
        kept = "whole conversations that have a match" if part.conversations else "packets that match"
        rows.append(("(kept)", "packets", f"{kept}, and the TCP socket events of these"))
    else:
        rows.append(("(nothing)", "packets", "not recorded"))
    if found.syscalls is not None:
        names = list(found.calls)
        for node in _conjuncts(found.syscalls.where.test):
            bounds, _ = kernel.calls(node, names or ["read"])
            first = next(iter(bounds.values()), kernel.Bound(kernel.NEVER, exact=True))
            rows.append((_shown(found.text, node), "syscalls", _place(first)))
        some = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        rows.append(("(kept)", "syscalls", f"calls that match, of: {some or 'none'}"))
    else:
        rows.append(("(nothing)", "syscalls", "not recorded"))
    return rows


def _conjuncts(node: tree.Test) -> tuple[tree.Test, ...]:
    return node.tests if isinstance(node, tree.Logic) and node.operator == "and" else (node,)


def _shown(text: str, node: tree.Test) -> str:
    return text[node.at : node.end]


def _place(bound: kernel.Bound) -> str:
    if bound.test == kernel.ALWAYS:
        return "when converting"
    return "in the kernel" if bound.exact else "in the kernel what cannot match, the rest when converting"
