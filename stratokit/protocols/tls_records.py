"""TLS records and hello messages as kernels (RFC 8446 sections 4 and 5; RFC 5246 for what went before).

A stream is read from its first byte to the first gap. What its plaintext handshake records hold is copied
together, for a message may begin in one record and end in another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import lean_routine, routine
from stratokit.protocols.buffers import be16, with_room

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
HEARTBEAT = 24  # RFC 6520
CLIENT_HELLO, SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE = 1, 2, 11, 12
SERVER_NAME, SUPPORTED_GROUPS, POINT_FORMATS, SIGNATURE_ALGORITHMS, ALPN = 0, 10, 11, 13, 16
PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS, KEY_SHARE, ENCRYPTED_HELLO = 41, 42, 43, 51, 0xFE0D

RECORD_HEADER_BYTES = 5
RECORD_LIMIT_BYTES = (1 << 14) + 2048  # RFC 5246 section 6.2.3
# Drafts of TLS 1.3 have their number behind this; a ServerHello up to draft 21 has no session id.
_DRAFT, _DRAFT_21 = 0x7F, 0x7F15
# A stream's row: places in the buffer, -1 where there is none. HELLO_START is where its hello's record
# begins, FINISHED the last byte of the first handshake record after ChangeCipherSpec, PROTECTED that of the
# first record of application data, AGAIN that of the second. PLAIN is where its handshake bytes begin in the
# copy, with their size; CHANGED_AT how many of them came before ChangeCipherSpec.
HELLO_START, FINISHED, PROTECTED, ALERT_CODE, PLAIN, PLAIN_SIZE, CHANGED_AT, AGAIN = range(8)
STREAM_COLUMNS = 8

# A hello's row; places are in the copy, each with its size behind it. LEGACY is the version in front, VERSION
# the chosen one; CIPHER that of a server; GROUP that of its key share. NAMED: it has a server name extension.
VERSION, CIPHER, NAME, ALPN_LIST, SESSION, RESUMES, EARLY, LEGACY, NAMED, GROUP, ENCRYPTED = (
    0, 1, 2, 4, 6, 8, 9, 10, 11, 12, 13
)  # fmt: skip
CIPHERS, EXTENSIONS, GROUPS, FORMATS, ALGORITHMS, VERSIONS = 14, 16, 18, 20, 22, 24
RANDOM = 26  # always 32 bytes
HELLO_COLUMNS = 27

# The random of a ServerHello that asks for another ClientHello (RFC 8446 section 4.1.3).
_RETRY = np.frombuffer(
    bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"), np.uint8
)


@lean_routine
def _begins(data: np.ndarray, p: int, end: int, kind: int) -> bool:
    """Whether a message of that kind begins with the handshake records at p, which may be shorter than its
    header: type 8, size 24 (of which the first byte is 0), version 16."""
    at = 0
    while p + RECORD_HEADER_BYTES < end and data[p] == HANDSHAKE and data[p + 1] == 3:
        size = be16(data, p + 3)
        for k in range(p + RECORD_HEADER_BYTES, min(p + RECORD_HEADER_BYTES + size, end)):
            if (at == 0 and data[k] != kind) or (at == 1 and data[k] != 0):
                return False
            if at == 4:
                return data[k] == 3 or (kind == SERVER_HELLO and data[k] == _DRAFT)
            at += 1
        if size == 0:
            break
        p += RECORD_HEADER_BYTES + size
    return False


@lean_routine
def is_hello(data: np.ndarray, p: int, end: int, kind: int) -> Any:
    """Whether a handshake record with a hello of that kind begins at p."""
    if p < 0 or p + 11 > end or data[p] != HANDSHAKE or data[p + 1] != 3 or data[p + 2] > 4:
        return False
    return be16(data, p + 3) <= 1 << 14 and _begins(data, p, end, kind)


@lean_routine
def is_record(data: np.ndarray, p: int, end: int) -> Any:
    """Whether a record begins at p, and another one behind it as far as that is there."""
    for _ in range(2):
        if p + RECORD_HEADER_BYTES > end:
            break
        size = be16(data, p + 3)
        if not CHANGE_CIPHER_SPEC <= data[p] <= HEARTBEAT or data[p + 1] != 3 or data[p + 2] > 4:
            return False
        if not 0 < size <= RECORD_LIMIT_BYTES:
            return False
        p += RECORD_HEADER_BYTES + size
    return True


@lean_routine
def find_hello(data: np.ndarray, p: int, end: int, kind: int) -> Any:
    """Where the first hello of that kind begins, at p or behind what another protocol said before; or -1.

    Behind other bytes its message has to fit its record: chance would have to guess four bytes more.
    """
    if is_hello(data, p, end, kind):
        return p
    while p + 11 <= end:
        if data[p] == HANDSHAKE and is_hello(data, p, end, kind):
            size = i64(data[p + 6]) << 16 | be16(data, p + 7)
            if size >= 38 and size + 4 >= be16(data, p + 3) and data[p + 10] <= 3:
                return p
        p += 1
    return -1


@routine
def read_records(data: np.ndarray, p: int, end: int, row: np.ndarray, out: np.ndarray, n: int) -> Any:
    """Walk the records of a stream, copying plaintext handshake bytes to out[n:]: (out, new n)."""
    for k in range(STREAM_COLUMNS):
        row[k] = -1
    row[HELLO_START], row[PLAIN], row[CHANGED_AT] = p, n, -1
    while p + RECORD_HEADER_BYTES <= end:
        kind, size = data[p], be16(data, p + 3)
        body = p + RECORD_HEADER_BYTES
        if data[p + 1] != 3 or not CHANGE_CIPHER_SPEC <= kind <= APPLICATION_DATA:
            break
        last = min(body + size, end)
        if kind == HANDSHAKE:
            out = with_room(out, n, last - body)
            for k in range(body, last):
                out[n] = data[k]
                n += 1
        if last < body + size:
            break
        if kind == CHANGE_CIPHER_SPEC and row[CHANGED_AT] < 0:
            row[CHANGED_AT] = n - row[PLAIN]
        elif kind == HANDSHAKE and row[CHANGED_AT] >= 0 and row[FINISHED] < 0:
            row[FINISHED] = last - 1
        elif kind == ALERT and size == 2 and data[body + 1] and row[ALERT_CODE] < 0:  # 0 is close_notify
            row[ALERT_CODE] = data[body + 1]
        elif kind == APPLICATION_DATA:
            if row[PROTECTED] >= 0:
                row[AGAIN] = last - 1
                break
            row[PROTECTED] = last - 1
        p = last
    row[PLAIN_SIZE] = n - row[PLAIN]
    return out, n


@lean_routine
def _keep(hello: np.ndarray, column: int, p: int, size: int, end: int) -> None:
    hello[column], hello[column + 1] = p, max(min(size, end - p), 0)


@lean_routine
def _read_list(data: np.ndarray, kind: int, p: int, end: int, hello: np.ndarray) -> None:
    """Extensions of a client that are a list behind its size in two bytes, or in one."""
    if kind == SUPPORTED_GROUPS and p + 2 <= end:
        _keep(hello, GROUPS, p + 2, be16(data, p), end)
    elif kind == SIGNATURE_ALGORITHMS and p + 2 <= end:
        _keep(hello, ALGORITHMS, p + 2, be16(data, p), end)
    elif kind == POINT_FORMATS and p < end:
        _keep(hello, FORMATS, p + 1, i64(data[p]), end)
    elif kind == SUPPORTED_VERSIONS and p < end:
        _keep(hello, VERSIONS, p + 1, i64(data[p]), end)


@lean_routine
def _read_extension(
    data: np.ndarray, kind: int, p: int, end: int, is_client: bool, hello: np.ndarray
) -> None:
    if is_client:
        _read_list(data, kind, p, end, hello)
    elif kind == SUPPORTED_VERSIONS and p + 2 <= end:
        hello[VERSION] = be16(data, p)
    elif kind == KEY_SHARE and p + 2 <= end:
        hello[GROUP] = be16(data, p)
    if kind == SERVER_NAME:
        hello[NAMED] = 1
        if p + 5 <= end and data[p + 2] == 0:  # RFC 6066 section 3: list, type, name
            _keep(hello, NAME, p + 5, be16(data, p + 3), end)
    elif kind == ALPN and p + 2 <= end:  # RFC 7301 section 3.1
        _keep(hello, ALPN_LIST, p + 2, end, end)
    elif kind == PRE_SHARED_KEY:
        hello[RESUMES] = 1
    elif kind == EARLY_DATA:
        hello[EARLY] = 1
    elif kind == ENCRYPTED_HELLO:
        hello[ENCRYPTED] = 1


@lean_routine
def _read_body(data: np.ndarray, p: int, end: int, is_client: bool, hello: np.ndarray) -> bool:
    if p + 35 > end:
        return False
    hello[LEGACY] = hello[VERSION] = be16(data, p)
    hello[RANDOM] = p + 2
    p += 34  # version and random
    is_draft = not is_client and _DRAFT << 8 < hello[LEGACY] <= _DRAFT_21
    if not is_draft:
        hello[SESSION], hello[SESSION + 1] = p + 1, data[p]
        p += 1 + data[p]
    if p + 3 > end:
        return False
    if is_client:
        _keep(hello, CIPHERS, p + 2, be16(data, p), end)
        p += 2 + be16(data, p)
        if p >= end:
            return False
        p += 1 + data[p]  # compression methods
    else:
        hello[CIPHER] = be16(data, p)
        p += 2 if is_draft else 3
    if p + 2 > end:
        return True  # no extensions
    _keep(hello, EXTENSIONS, p + 2, be16(data, p), end)
    p, end = p + 2, p + 2 + hello[EXTENSIONS + 1]
    while p + 4 <= end:
        size = be16(data, p + 2)
        if p + 4 + size > end:
            break
        _read_extension(data, be16(data, p), p + 4, p + 4 + size, is_client, hello)
        p += 4 + size
    return True


@lean_routine
def read_hello(data: np.ndarray, p: int, end: int, hello: np.ndarray) -> Any:
    """Read the hello message at p: the position behind it, or -1 where there is none in full."""
    for k in range(HELLO_COLUMNS):
        hello[k] = -1
    if p + 4 > end or data[p] not in (CLIENT_HELLO, SERVER_HELLO):
        return -1
    is_client = data[p] == CLIENT_HELLO
    behind = p + 4 + (i64(data[p + 1]) << 16 | be16(data, p + 2))
    if behind <= end and _read_body(data, p + 4, behind, is_client, hello):
        return behind
    for k in range(HELLO_COLUMNS):
        hello[k] = -1
    return -1


@lean_routine
def asks_again(data: np.ndarray, p: int, end: int) -> bool:
    """Whether the ServerHello at p is a HelloRetryRequest."""
    if p + 6 + _RETRY.size > end:
        return False
    k = 0
    while k < _RETRY.size and data[p + 6 + k] == _RETRY[k]:
        k += 1
    return k == _RETRY.size


@lean_routine
def find_message(data: np.ndarray, p: int, end: int, kind: int) -> Any:
    """(position, size) of the body of the first handshake message of that kind from p on, or -1."""
    while p + 4 <= end:
        size = i64(data[p + 1]) << 16 | be16(data, p + 2)
        if data[p] == kind:
            return p + 4, min(size, end - p - 4)
        p += 4 + size
    return i64(-1), i64(0)


@lean_routine
def read_chain(data: np.ndarray, p: int, size: int, places: np.ndarray, n: int) -> int:
    """(position, size) of each certificate in the body of a Certificate message (RFC 5246 section 7.4.2)."""
    end = p + size
    p += 3
    while p + 3 <= end and n < places.shape[0]:
        length = i64(data[p]) << 16 | be16(data, p + 1)
        if p + 3 + length > end:
            break
        places[n, 0], places[n, 1] = p + 3, length
        n += 1
        p += 3 + length
    return n
