"""What every protocol of this room is: the same few things, so that two of them can be laid side by side."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from stratokit.schema.tables import Table
    from stratokit.streams.source import PacketSource


@dataclasses.dataclass(frozen=True, slots=True)
class Protocol:
    """An application protocol.

    Attributes:
        name: lower case, as in the table `flows` and as a filter.
        doc: what is implemented, with the RFC.
        recognised: by which bytes a conversation is known to speak it.
        table: the rows it gives, with their filter fields.
        build: from packets to those rows; nothing is computed before they are collected.
    """

    name: str
    doc: str
    recognised: str
    table: Table
    build: Callable[[PacketSource], pl.LazyFrame]


@dataclasses.dataclass(slots=True)
class Passes:
    """What was found in a capture so far; kept on the capture, so that it lives as long as that."""

    expected: set[str] = dataclasses.field(default_factory=set)
    parts: dict[str, list[pl.DataFrame]] = dataclasses.field(default_factory=dict)
    packets: dict[str, list[pl.DataFrame]] = dataclasses.field(default_factory=dict)
    beside: dict[str, list[pl.DataFrame]] = dataclasses.field(default_factory=dict)
    counters: Counter[str] = dataclasses.field(default_factory=Counter)
    counted: set[str] = dataclasses.field(default_factory=set)  # tables whose counters are among these

    def forget(self) -> None:
        """Let go of what tables were made of; who asks for it again goes through the capture again."""
        for found in (self.parts, self.packets, self.beside):
            found.clear()
