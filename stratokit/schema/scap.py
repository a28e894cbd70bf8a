"""Events of scap files as schemas/scap/ declares them."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from typing import Any

from stratokit.errors import SchemaError
from stratokit.schema.load import data_dir


@dataclasses.dataclass(frozen=True, slots=True)
class Param:
    """A parameter: its type, the table its flags are numbered by, and its place in a capture row."""

    name: str
    type: str
    flags: str = ""
    place: str = ""

    @classmethod
    def parsed(cls, text: str) -> Param:
        """From `name:type.flags>place`."""
        head, _, place = text.partition(">")
        name, _, kind = head.partition(":")
        kind, _, flags = kind.partition(".")
        return cls(name, kind, flags, place)


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """An event with the parameters of its enter and its exit.

    `known` are the parameters of both that sysdig 0.29.3 knows, None where it does not know the event;
    `safe` those of the exit that every reader since libs 0.22 takes.
    """

    type: int
    name: str
    call: str
    does: str
    single: bool
    large: bool
    known: tuple[int, int] | None
    safe: int
    enter: tuple[Param, ...]
    exit: tuple[Param, ...]

    def params(self, type_: int) -> tuple[Param, ...]:
        """Of the enter or of the exit event, by its type."""
        return self.exit if type_ & 1 else self.enter


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """How a system call stands in scap files: libs' number of it, and the type of its enter event."""

    code: int
    type: int
    known: int


@functools.cache
def _read(name: str) -> dict[str, Any]:
    path = data_dir("schemas") / "scap" / name
    with path.open("rb") as file:
        return tomllib.load(file)


@functools.cache
def events() -> dict[int, Event]:
    """All events by the type of their enter event, which is even.

    Raises:
        SchemaError: a type is odd, or stands there twice.
    """
    found = {}
    for key, entry in _read("events.toml")["events"].items():
        type_ = int(key)
        if type_ & 1:
            raise SchemaError(f"scap event {type_}: an enter event has an even type")
        exit_ = tuple(Param.parsed(text) for text in entry.get("exit", ()))
        known = entry.get("known")
        found[type_] = Event(
            type_,
            entry["name"],
            entry.get("call", entry["name"]),
            entry.get("does", ""),
            entry.get("single", False),
            entry.get("large", False),
            (known[0], known[1]) if known else None,
            entry.get("safe", len(exit_)),
            tuple(Param.parsed(text) for text in entry.get("enter", ())),
            exit_,
        )
    return found


@functools.cache
def flags() -> dict[str, dict[str, Any]]:
    """Tables of numbers that differ from those of Linux: pairs [Linux, scap] as `bits` or as `values`."""
    return dict(_read("events.toml")["flags"])


@functools.cache
def calls() -> dict[str, Call]:
    """System calls of x86_64 by name."""
    entries = _read("calls.toml")["calls"]
    return {n: Call(e["code"], e["type"], e.get("known", e["type"])) for n, e in entries.items()}


@functools.cache
def known_codes() -> int:
    """The first number of a call that sysdig 0.29.3 does not know, and crashes at."""
    return int(_read("calls.toml")["known_codes"])


@functools.cache
def codes() -> dict[int, str]:
    """Name of every call by libs' number."""
    return {int(code): name for code, name in _read("calls.toml")["codes"].items()}
