"""HTTP/1 conversations made by hand, and their rows."""

from __future__ import annotations

from typing import Any

import polars as pl
from helpers.traffic import Connection, Packets

from stratokit.protocols import http

GET = b"GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test/1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


def rows(packets: Packets) -> list[dict[str, Any]]:
    frame = http.build(packets).collect()
    return frame.with_columns(pl.col("ts_request", "ts_response").to_physical()).to_dicts()


def exchange(*turns: bytes, close: bool = False) -> list[dict[str, Any]]:
    """Rows of one connection in which client and server send these in turn."""
    packets = Packets()
    connection = Connection(packets)
    for k, turn in enumerate(turns):
        (connection.answer if k % 2 else connection.ask)(turn)
    if close:
        connection.close()
    return rows(packets)


def brief(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["method"], row["path"], row["status"]) for row in found]
