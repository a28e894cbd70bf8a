"""HTTP/2 connections made by hand: frames, and their rows."""

from __future__ import annotations

from typing import Any

import hpack
import polars as pl
from helpers.traffic import CLIENT, SERVER, Connection, Packets

from stratokit.protocols import grpc, http, http2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(**values: int) -> bytes:
    names = {"max_streams": 3, "window": 4}
    return frame(
        SETTINGS,
        0,
        0,
        b"".join(names[k].to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in values.items()),
    )


def window(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


class Side:
    """What one side sends, with its own HPACK state."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()

    def headers(self, stream: int, fields: dict[str, str], end: bool = True, **flags: Any) -> bytes:
        block = self.encoder.encode(list(fields.items()), huffman=flags.get("huffman", True))
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


def request(path: str = "/a", method: str = "GET", **more: str) -> dict[str, str]:
    fields = {":method": method, ":scheme": "http", ":path": path, ":authority": "shop.example"}
    return fields | {name.replace("_", "-"): value for name, value in more.items()}


def response(status: int = 200, **more: str) -> dict[str, str]:
    return {":status": str(status)} | {name.replace("_", "-"): value for name, value in more.items()}


class Exchange:
    """A connection whose sides begin as they must."""

    def __init__(self, handshake: bool = True, begin: bool = True, step_ns: int = 1_000_000) -> None:
        self.packets = Packets(step_ns=step_ns)
        self.connection = Connection(self.packets, handshake=handshake)
        self.client, self.server = Side(), Side()
        if begin:
            self.ask(PREFACE + settings())
            self.answer(settings())

    def ask(self, data: bytes, cuts: list[int] | tuple[int, ...] = ()) -> None:
        self.connection.ask(data, cuts)

    def answer(self, data: bytes, cuts: list[int] | tuple[int, ...] = ()) -> None:
        self.connection.answer(data, cuts)

    def lose(self, client: bool, size: int) -> None:
        self.connection.lose(CLIENT if client else SERVER, size)

    def http(self) -> list[dict[str, Any]]:
        frame = http.build(self.packets).collect()
        return frame.with_columns(pl.col("ts_request", "ts_response").to_physical()).to_dicts()

    def http2(self) -> list[dict[str, Any]]:
        return http2.build(self.packets).collect().to_dicts()

    def grpc(self) -> list[dict[str, Any]]:
        return grpc.build(self.packets).collect().to_dicts()
