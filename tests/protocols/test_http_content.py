"""Bodies of HTTP/1: chunks and codings taken off, bombs and nonsense left alone."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import brotli
import pytest
import zstandard
from helpers.http_exchange import GET
from helpers.traffic import SERVER, Connection, Packets
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import http_bodies_table
from stratokit.protocols.http_content import BODY_LIMIT_BYTES, TOO_LARGE, dechunked, decoded

TEXT = b"to be or not to be, " * 50


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


CODED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT[:500]) + gzip.compress(TEXT[500:]),
    "deflate": zlib.compress(TEXT),
    "Deflate": raw_deflate(TEXT),
    "br": brotli.compress(TEXT),
    "zstd": zstandard.compress(TEXT),
    "identity": TEXT,
    "gzip, br": brotli.compress(gzip.compress(TEXT)),
}


def rows(response: bytes, request: bytes = GET, lost: int = 0) -> list[dict[str, Any]]:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(request)
    connection.answer(response[: len(response) - lost])
    connection.lose(SERVER, lost)
    connection.close()
    return http_bodies_table.build(packets).collect().to_dicts()


def answer(body: bytes, encoding: str, chunks: int = 0) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: {encoding}\r\n".encode()
    if not chunks:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    parts = [body[n : n + chunks] for n in range(0, len(body), chunks)]
    framed = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("encoding", CODED)
@pytest.mark.parametrize("chunks", [0, 7])
def test_each_coding_with_and_without_chunks(encoding: str, chunks: int) -> None:
    (row,) = rows(answer(CODED[encoding], encoding, chunks))
    assert (row["body"], row["error"]) == (TEXT, None)
    assert row["sent_bytes"] == len(CODED[encoding])
    assert (row["side"], row["method"], row["path"], row["status"]) == ("response", "GET", "/a?b=c", 200)
    assert (row["content_type"], row["content_encoding"]) == ("text/plain", encoding)
    assert row["first_frame"] == 5


def test_a_body_of_a_request() -> None:
    sent = b"POST /form HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\na=1&b=2"
    (row,) = rows(b"HTTP/1.1 204 No Content\r\n\r\n", sent)
    assert (row["side"], row["body"], row["status"], row["host"]) == ("request", b"a=1&b=2", 204, "h")


def test_what_is_not_all_there() -> None:
    (row,) = rows(answer(TEXT, "identity"), lost=100)
    assert (row["body"], row["error"]) == (TEXT[:-100], "bytes are missing from the capture")
    (row,) = rows(answer(CODED["gzip"], "gzip"), lost=8)
    assert row["error"] == "ends in the middle of compressed data"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_bombs_and_nonsense(coding: str) -> None:
    zeros = bytes(BODY_LIMIT_BYTES + 1)
    pack = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli.compress,
        "zstd": zstandard.compress,
    }
    bomb = pack[coding](zeros) if coding != "br" else brotli.compress(zeros, quality=1)
    assert decoded(bomb, coding) == (None, TOO_LARGE)
    assert decoded(b"\xff\xfenonsense", coding) == (None, f"is no {coding}")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([*CODED, "a,b", "gzip," * 50]))
def test_any_bytes(data: bytes, encoding: str) -> None:
    body, error = decoded(data, encoding)
    assert body is not None or error is not None
    assert len(dechunked(data)[0]) <= len(data)


def test_no_other_table_builds_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    from stratokit.protocols import http, http1

    monkeypatch.setattr(http1, "bodies", None)
    packets = Packets()
    connection = Connection(packets)
    connection.ask(GET)
    connection.answer(answer(TEXT, "identity"))
    assert http.build(packets).collect().height == 1
