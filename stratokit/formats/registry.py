"""Which formats there are, and which one a file has: told by its first bytes, never by its suffix.

A format module ends with `FORMAT = Format(...)`; its line in MODULES is all that else is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from typing import TYPE_CHECKING, Any

from stratokit.errors import FormatError, UsageError
from stratokit.formats.source import read_head

if TYPE_CHECKING:
    from collections.abc import Callable

# With the suffixes that they are written under, in the order in which they are asked about a file. Modules
# behind the one that knows it, and those of other suffixes, need not be loaded.
MODULES = {
    "pcap": (".pcap", ".cap", ".dmp"),
    "parquet": (".parquet",),
    "scap": (".scap",),
    "pcapng": (".pcapng", ".ntar"),
}
# Enough for every sniffer: the longest looks at the byte-order magic of a pcapng section at byte 8.
HEAD_BYTES = 64
EDITCAP = "(Wireshark's `editcap FILE OUT.pcapng` makes one that can)"
# Other files that people have at hand.
FOREIGN = {
    b"snoop\0\0\0": f"a snoop file {EDITCAP}",
    b"btsnoop\0": f"a btsnoop file {EDITCAP}",
    b"GMBU": f"a file of Network Monitor {EDITCAP}",
    b"RTSS": f"a file of Network Monitor {EDITCAP}",
    b"TRSNIFF data": f"a file of Sniffer {EDITCAP}",
    b"XCP\0": f"a file of NetXRay {EDITCAP}",
    b"PK\x03\x04": "a zip archive",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """A file format; `open_reader` or `open_writer` is None where that direction does not exist."""

    name: str
    sniff: Callable[[bytes], bool]
    open_reader: Callable[..., Any] | None
    open_writer: Callable[..., Any] | None


@functools.cache
def load_format(name: str) -> Format:
    """The format of one module; heavy libraries come with it, so nobody loads more than needed."""
    form: Format = importlib.import_module(f"stratokit.formats.{name}").FORMAT
    return form


def formats() -> tuple[Format, ...]:
    """All formats, in the order in which they are asked about a file."""
    return tuple(load_format(name) for name in MODULES)


def by_head(head: bytes, name: str = "") -> Format | None:
    """The format of a file that begins with `head`, or None; that of the file's name is asked first."""
    modules = sorted(MODULES, key=lambda module: not name.lower().endswith(MODULES[module]))
    return next((form for module in modules if (form := load_format(module)).sniff(head)), None)


def by_content(path: str | os.PathLike[str]) -> Format:
    """The format of the file at `path`, packed or not, or a FormatError that says what is wrong with it."""
    head = read_head(path, HEAD_BYTES)
    if not head:
        raise FormatError(f"{os.fspath(path)} is empty")
    form = by_head(head, os.fspath(path))
    if form is not None:
        return form
    names = ", ".join(f.name for f in formats() if f.open_reader)
    for begin, what in FOREIGN.items():
        if head.startswith(begin):
            raise FormatError(f"{os.fspath(path)} is {what}, which cannot be read; what can be is {names}")
    raise FormatError(f"{os.fspath(path)} is of no known format ({names})")


def by_suffix(path: str | os.PathLike[str]) -> Format:
    """The format to write to `path`, or a UsageError that lists the suffixes there are."""
    name = os.fspath(path).lower()
    for module, suffixes in MODULES.items():
        if name.endswith(suffixes) and (form := load_format(module)).open_writer:
            return form
    known = ", ".join(suffix for f in formats() if f.open_writer for suffix in MODULES[f.name])
    raise UsageError(f"cannot tell the format of {os.fspath(path)}: its name must end in one of {known}")
