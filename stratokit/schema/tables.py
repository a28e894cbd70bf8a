"""What a derived table is: its name, its columns, and the filter fields that stand for them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import polars as pl

    from stratokit.schema.model import Column


@dataclasses.dataclass(frozen=True, slots=True)
class FilterField:
    """A name of the filter language (Wireshark's, or sysdig's) for one or several columns of a table.

    Several columns make a multi-valued field, as ip.addr is for src_ip and dst_ip.
    """

    name: str
    columns: tuple[str, ...]
    doc: str


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table that `Capture.table` gives: one meaning a row, columns in order, filter fields.

    A `costly` one is built only where it is asked for by its name, not to filter others by its fields.
    Columns `on_request` take work of their own and come only where they are named.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    fields: tuple[FilterField, ...] = ()
    costly: bool = False
    on_request: tuple[Column, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class PacketFields:
    """Filter fields that single packets have by the messages which they complete, for filters on `packets`.

    `table` declares what `build` makes of a capture: a row for each message, its column `frame` the packet
    that Wireshark shows it in. The table's name alone is a filter as well, for the packets of all of them.
    """

    table: Table
    build: Callable[[Any], pl.LazyFrame]
