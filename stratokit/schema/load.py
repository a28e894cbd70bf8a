"""Reads schemas/ into the values of `model`, and refuses what breaks the rules of schemas/README.md."""

from __future__ import annotations

import functools
import pathlib
import platform
import re
import tomllib
from typing import Any

from stratokit.errors import SchemaError
from stratokit.schema.model import CaptureSchema, Column, Counter, Event, Field, Section, Syscall

SCALAR_BYTES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "s32": 4, "s64": 8, "char": 1}
COLUMN_TYPES = frozenset(
    ("u8", "u16", "u32", "u64", "s32", "s64", "bool", "f64", "text", "name", "bytes", "time", "list<text>")
)
_ARRAY = re.compile(r"(\w+)\[(\d+)\]")


@functools.cache
def data_dir(name: str) -> pathlib.Path:
    """Folder `schemas` or `bpf`: inside an installed wheel, else at the top of the repository."""
    package = pathlib.Path(__file__).resolve().parents[1]
    for place in (package / f"_{name}", package.parent / name):
        if place.is_dir():
            return place
    raise SchemaError(f"the folder {name}/ is missing from this installation; install stratokit again")


def _read(relative: str) -> dict[str, Any]:
    return tomllib.loads((data_dir("schemas") / relative).read_text(encoding="utf-8"))


def type_size(type_: str) -> tuple[int, int]:
    """(size, alignment) in bytes of an event field type."""
    match = _ARRAY.fullmatch(type_)
    scalar, count = (match[1], int(match[2])) if match else (type_, 1)
    if scalar not in SCALAR_BYTES or count < 1 or (scalar == "char" and not match):
        raise SchemaError(f"unknown field type {type_!r}")
    return SCALAR_BYTES[scalar] * count, SCALAR_BYTES[scalar]


def _doc(entry: dict[str, Any], what: str) -> str:
    text = str(entry.get("doc", "")).strip()
    if not text:
        raise SchemaError(f"{what} has no doc")
    return text


def lay_out(entries: list[dict[str, Any]], offset: int, what: str) -> tuple[tuple[Field, ...], int]:
    """Fields with offsets, and the end. A field off its natural alignment would mean hidden padding:
    refused.
    """
    fields = []
    for entry in entries:
        name = entry["name"]
        size, align = type_size(entry["type"])
        if offset % align:
            raise SchemaError(f"{what}.{name} at byte {offset} is not aligned to {align}: hidden padding")
        doc = _doc(entry, f"{what}.{name}")
        fields.append(
            Field(name, entry["type"], doc, entry.get("unit", ""), entry.get("since", 1), offset, size)
        )
        offset += size
    names = [field.name for field in fields]
    if len(set(names)) != len(names):
        raise SchemaError(f"{what} names a field twice")
    return tuple(fields), offset


def build_event(data: dict[str, Any], header: tuple[Field, ...], header_size: int) -> Event:
    """An event from its parsed schema file."""
    what = f"event {data['name']}"
    fields, size = lay_out(data["field"], header_size, what)
    if size % 8:
        raise SchemaError(f"{what} is {size} bytes, no multiple of 8: hidden padding")
    lengths = {field.name for field in fields}
    sections = tuple(
        Section(s["name"], s["length"], _doc(s, f"{what}.{s['name']}")) for s in data.get("section", ())
    )
    for section in sections:
        if section.length not in lengths:
            raise SchemaError(f"{what}: section {section.name} takes its length from an unknown field")
    return Event(data["id"], data["name"], _doc(data, what), header + fields, sections, size, data["since"])


@functools.cache
def events() -> dict[str, Event]:
    """All kernel events by name, in order of their ids."""
    header, header_size = lay_out(_read("events/header.toml")["field"], 0, "event header")
    files = (data_dir("schemas") / "events").glob("*.toml")
    found = [
        build_event(_read(f"events/{path.name}"), header, header_size)
        for path in files
        if path.name != "header.toml"
    ]
    found.sort(key=lambda event: event.id)
    if len({event.id for event in found}) != len(found):
        raise SchemaError("two events share an id")
    return {event.name: event for event in found}


@functools.cache
def capture() -> CaptureSchema:
    """The flat schema of capture.parquet."""
    data = _read("capture.toml")
    columns = []
    for entry in data["column"]:
        what = f"column {entry['name']}"
        if entry["type"] not in COLUMN_TYPES:
            raise SchemaError(f"{what} has the unknown type {entry['type']!r}")
        unknown = set(entry["kinds"]) - set(data["kinds"]) - {"*"}
        if unknown:
            raise SchemaError(f"{what} is for unknown kinds {sorted(unknown)}")
        columns.append(
            Column(
                entry["name"],
                entry["type"],
                _doc(entry, what),
                entry.get("unit", ""),
                tuple(entry["kinds"]),
                entry.get("since", 1),
            )
        )
    if len({column.name for column in columns}) != len(columns):
        raise SchemaError("capture.toml names a column twice")
    return CaptureSchema(data["version"], data["kinds"], tuple(columns))


@functools.cache
def counters() -> dict[str, Counter]:
    """All counters by name; those of the kernel first, in the order of their index there."""
    entries = _read("counters.toml")["counter"]
    found = [
        Counter(e["name"], e["where"], e["loss"], _doc(e, f"counter {e['name']}"), e.get("since", 1))
        for e in entries
    ]
    if len({counter.name for counter in found}) != len(found):
        raise SchemaError("counters.toml names a counter twice")
    return {counter.name: counter for counter in found}


def kernel_counters() -> tuple[str, ...]:
    """Names by index of what kernel programs count: the counters, then the records handed over of each
    event.
    """
    lost = tuple(c.name for c in counters().values() if c.where == "kernel")
    return lost + tuple(f"recorded_{name}" for name in events())


@functools.cache
def syscall_groups() -> dict[str, str]:
    """Groups of system calls with their meaning."""
    return dict(_read("syscalls/calls.toml")["groups"])


@functools.cache
def syscalls(machine: str = platform.machine()) -> dict[int, Syscall]:
    """System calls of a machine type by number; empty when the type is not known."""
    path = data_dir("schemas") / "syscalls" / f"{machine}.toml"
    if not path.is_file():
        return {}
    calls = _read("syscalls/calls.toml")["calls"]
    table = {}
    for name, number in _read(f"syscalls/{machine}.toml")["numbers"].items():
        spec = calls.get(name)
        if spec is None:
            args: tuple[tuple[str, str], ...] = tuple((f"arg{i}", "hex") for i in range(6))
            table[number] = Syscall(number, name, "other", args)
            continue
        pairs = tuple((a, k) for a, _, k in (text.partition(":") for text in spec["args"]))
        returns, manages = spec.get("returns", "int"), spec.get("manages", False)
        table[number] = Syscall(number, name, spec["group"], pairs, returns, manages)
    return table
