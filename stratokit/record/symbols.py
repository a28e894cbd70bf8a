"""Names of kernel code, from /proc/kallsyms."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import pathlib
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KALLSYMS = pathlib.Path("/proc/kallsyms")
_CODE = frozenset(b"tTwW")


class Kallsyms:
    """The list of symbols, opened: what it shows is decided by who opened it, so it goes on showing addresses
    to a recorder that has given up its privileges since.
    """

    def __init__(self, path: pathlib.Path = KALLSYMS) -> None:
        self._file: BinaryIO | None = None
        with contextlib.suppress(OSError):
            self._file = path.open("rb")

    def _code(self) -> Iterator[tuple[int, bytes]]:
        """Address and line of each function: `ffffffff81000000 T name`, and [module] where it is of one."""
        if self._file is None:
            return
        self._file.seek(0)
        for line in self._file:
            if len(line) > 19 and line[17] in _CODE:
                yield int(line[:16], 16), line

    def names(self, addresses: Iterable[int]) -> dict[int, str]:
        """`function+0x1a` for each address behind a function's; empty where the kernel shows only zeros.

        The file is in no order, so of each span between two addresses the last function is kept.
        """
        wanted = sorted(addresses)
        lasts: list[tuple[int, bytes]] = [(0, b"")] * (len(wanted) + 1)
        try:
            for begin, line in self._code():
                place = bisect.bisect_left(wanted, begin)
                if begin > lasts[place][0]:
                    lasts[place] = begin, line
        except (OSError, ValueError):
            return {}
        found: dict[int, str] = {}
        begin, line = 0, b""
        for address, (last, its_line) in zip(wanted, lasts, strict=False):
            if last:
                begin, line = last, its_line
            if begin:
                name = line.split()[2].decode(errors="backslashreplace")
                found[address] = f"{name}+{address - begin:#x}"
        return found

    def readable(self) -> bool:
        """Whether it shows where functions are."""
        try:
            return any(address for address, _ in itertools.islice(self._code(), 100))
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class DropNames:
    """Where packets were dropped: what of it a spool does not hold yet."""

    def __init__(self, symbols: Kallsyms) -> None:
        self._symbols = symbols
        self._names: dict[int, str | None] = {}
        self._told: set[int] = set()
        self.stacks: set[int] = set()  # numbers of those that the spool holds
        self._unnamed = False

    def forget(self) -> None:
        """A spool begins, which holds nothing."""
        self._told, self.stacks = set(), set()

    def new(self, places: set[int], stacks: dict[int, list[int]]) -> Iterator[tuple[str, list[Any]]]:
        """New rows of tables: `symbols` (address, name), `stacks` (number, addresses innermost first)."""
        fresh = {number: frames for number, frames in stacks.items() if number not in self.stacks}
        addresses = places.union(*fresh.values()) - self._told
        if missing := addresses - self._names.keys():
            known = self._symbols.names(missing)
            self._names |= {address: known.get(address) for address in missing}
        if rows := [[a, self._names[a]] for a in sorted(addresses) if self._names[a]]:
            yield "symbols", rows
        if fresh:
            yield "stacks", [[number, frames] for number, frames in fresh.items()]
        self._unnamed = self._unnamed or len(rows) < len(addresses)
        self._told |= addresses
        self.stacks |= fresh.keys()

    def counts(self) -> dict[str, int]:
        """The counter of what has no name, once."""
        return {"drop_unnamed": int(self._unnamed)}
