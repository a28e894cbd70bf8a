"""Bodies of HTTP/1 messages, without chunks (RFC 9112 section 7.1) and content codings (RFC 9110, 8.4).

Work of Python for each message, for people who ask for the table `http_bodies`; nothing else builds a body.
Limits: a body of 16 MiB before and after decoding, 256 MiB of bodies of a group of conversations.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.protocols import http_messages as hm
from stratokit.protocols.http_lines import CHUNKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

BODY_LIMIT_BYTES = 1 << 24
GROUP_LIMIT_BYTES = 1 << 28
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK_LINE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,14})[ \t]*(?:;[^\n]*)?\r?\n")
_KNOWN = ("gzip", "x-gzip", "deflate", "br", "zstd")
TOO_LARGE = "larger than 16 MiB"


def dechunked(data: bytes) -> tuple[bytes, bool]:
    """(what the chunks hold, whether the last chunk is among them).

    >>> dechunked(b"3\\r\\nabc\\r\\n2;x=y\\r\\nde\\r\\n0\\r\\n\\r\\n")
    (b'abcde', True)
    """
    parts: list[bytes] = []
    p = 0
    while found := _CHUNK_LINE.match(data, p):
        size, p = int(found[1], 16), found.end()
        if size == 0:
            return b"".join(parts), True
        parts.append(data[p : p + size])
        p += size
        p += 2 if data[p : p + 2] == b"\r\n" else data[p : p + 1] == b"\n"
    return b"".join(parts), False


def _inflated(data: bytes, wbits: int) -> tuple[bytes, str | None]:
    """zlib's formats; members of gzip may follow each other."""
    out = b""
    while data and len(out) <= BODY_LIMIT_BYTES:
        inflate = zlib.decompressobj(wbits)
        out += inflate.decompress(data, BODY_LIMIT_BYTES + 1 - len(out))
        if not inflate.eof:
            return out, "ends in the middle of compressed data"
        data = inflate.unused_data if inflate.unused_data[:2] == b"\x1f\x8b" else b""
    return out, None


def _unpacked(data: bytes, coding: str) -> tuple[bytes, str | None]:
    if coding in ("gzip", "x-gzip"):
        return _inflated(data, 47)
    if coding == "deflate":  # zlib's format; some send it without its header
        try:
            return _inflated(data, 15)
        except zlib.error:
            return _inflated(data, -15)
    if coding == "br":
        import brotli

        reader = brotli.Decompressor()
        out = reader.process(data, output_buffer_limit=BODY_LIMIT_BYTES + 1)
        done = reader.is_finished() or len(out) > BODY_LIMIT_BYTES
        return out, None if done else "ends in the middle of compressed data"
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as stream:
        return stream.read(BODY_LIMIT_BYTES + 1), None


def decoded(data: bytes, encoding: str | None) -> tuple[bytes | None, str | None]:
    """(body without its content codings, what is wrong with it); what was decoded before an error is given.

    >>> decoded(b"abc", "identity")
    (b'abc', None)
    >>> decoded(b"abc", "rot13")
    (None, 'rot13 is not known')
    """
    import brotli
    import zstandard

    codings = [c.strip().lower() for c in (encoding or "").split(",")]
    for coding in reversed([c for c in codings if c not in ("", "identity")]):
        if coding not in _KNOWN:
            return None, f"{coding} is not known"
        try:
            data, error = _unpacked(data, coding)
        except (zlib.error, brotli.error, zstandard.ZstdError):
            return None, f"is no {coding}"
        if error:
            return data, error
        if len(data) > BODY_LIMIT_BYTES:
            return None, TOO_LARGE
    return data, None


def _body(data: NDArray[Any], message: NDArray[Any], encoding: str | None) -> tuple[bytes | None, str | None]:
    start, stop = int(message[hm.START]), int(message[hm.LAST]) + 1
    if stop - start > 2 * BODY_LIMIT_BYTES:
        return None, TOO_LARGE
    raw = data[start:stop].tobytes()
    head = _HEAD_END.search(raw)
    if head is None:
        return None, "the head is not there in full"
    raw, whole = raw[head.end() :], not message[hm.CUT_SHORT]
    if message[hm.HEAD + CHUNKED] == 1:
        raw, whole = dechunked(raw)
    if len(raw) > BODY_LIMIT_BYTES:
        return None, TOO_LARGE
    if message[hm.CUT_SHORT]:
        whole = False
    body, error = decoded(raw, encoding)
    return body, error or (None if whole else "bytes are missing from the capture")


def bodies(data: NDArray[Any], messages: NDArray[Any], encodings: pl.Series) -> pl.DataFrame:
    """`body` and `error` of each message; both null where it has no body."""
    found: list[tuple[bytes | None, str | None]] = []
    total = 0
    for message, encoding in zip(messages, encodings.to_list(), strict=True):
        if message[hm.BODY_BYTES] <= 0:
            found.append((None, None))
        elif total > GROUP_LIMIT_BYTES:
            found.append((None, "left out: bodies of more than 256 MiB came before"))
        else:
            found.append(_body(data, message, encoding))
            total += len(found[-1][0] or b"")
    return pl.DataFrame(found, schema={"body": pl.Binary, "error": pl.String}, orient="row")
