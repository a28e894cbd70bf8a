"""TLS records opened with the secrets of a key log: application data as streams of their own.

A record can be read when its last byte is there, so its plaintext counts from that packet. A stream is opened
up to its first gap or the first record that no key fits; the bytes behind are counted.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from stratokit.protocols import tls_records as tr
from stratokit.protocols.inner import Inner
from stratokit.protocols.tls_keys import Opener, Secrets, openers
from stratokit.protocols.tls_suites import SUITES
from stratokit.streams.segments import NOWHERE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.byte_runs import ByteRuns

COUNTER = "tls_unopened_bytes"
_TLS12, _TLS13 = 0x0303, 0x0304
_ENCRYPTED_EXTENSIONS, _KEY_UPDATE = 8, 24


@dataclasses.dataclass(slots=True)
class _Opened:
    """One side: application data with where each record ended, handshake bytes, how many stayed closed."""

    data: list[bytes]
    ends: list[int]
    handshake: bytes = b""
    rest: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What was opened: conversations by index, streams inside, protocols chosen, bytes that stayed closed."""

    flows: list[int]
    inner: tuple[Inner, ...]
    alpn: list[str | None]
    unopened: int


def _open_side(data: bytes, opener: Opener, is_13: bool) -> _Opened:
    found = _Opened([], [])
    p, opening = 0, is_13
    while p + tr.RECORD_HEADER_BYTES <= len(data):
        kind, size = data[p], int.from_bytes(data[p + 3 : p + 5], "big")
        body, end = p + tr.RECORD_HEADER_BYTES, p + tr.RECORD_HEADER_BYTES + size
        if end > len(data) or not tr.CHANGE_CIPHER_SPEC <= kind <= tr.APPLICATION_DATA:
            break
        if kind == tr.CHANGE_CIPHER_SPEC:
            opening = True
        elif opening and (kind == tr.APPLICATION_DATA or not is_13):
            record = opener.open(data[p:body], data[body:end])
            if record is None:
                break
            inside, plain = record
            if inside == tr.APPLICATION_DATA and plain:
                found.data.append(plain)
                found.ends.append(end - 1)
            elif inside == tr.HANDSHAKE:
                found.handshake += plain
                if is_13 and plain[:1] == bytes([_KEY_UPDATE]):
                    opener.update()
        p = end
    found.rest = len(data) - p
    return found


def _alpn(handshake: bytes) -> str | None:
    """The protocol that EncryptedExtensions chooses (RFC 8446 section 4.3.1)."""
    if handshake[:1] != bytes([_ENCRYPTED_EXTENSIONS]):
        return None
    p, end = 6, 4 + int.from_bytes(handshake[1:4], "big")
    while p + 4 <= min(end, len(handshake)):
        size = int.from_bytes(handshake[p + 2 : p + 4], "big")
        if handshake[p : p + 2] == bytes([0, tr.ALPN]) and size > 3:
            return handshake[p + 7 : p + 4 + size].decode("latin-1")
        p += 4 + size
    return None


def open_all(
    runs: ByteRuns,
    asking: NDArray[np.int64],
    starts: NDArray[np.int64],
    hellos: NDArray[np.int64],
    plain: NDArray[np.uint8],
    secrets: Secrets,
) -> Found:
    """Open the conversations whose secrets are known.

    Args:
        starts: where records of the client's and the server's stream begin in `runs.data`, by pairs; or -1.
        hellos: of both, by pairs, with places in `plain`.
    """
    flows, sides, alpn = [], [], []
    for k in range(asking.size):
        client, server = hellos[2 * k], hellos[2 * k + 1]
        if client[tr.LEGACY] < 0 or server[tr.LEGACY] < 0 or server[tr.VERSION] not in (_TLS12, _TLS13):
            continue
        randoms = [plain[hello[tr.RANDOM] : hello[tr.RANDOM] + 32].tobytes() for hello in (client, server)]
        known, is_13 = secrets.get(randoms[0]), bool(server[tr.VERSION] == _TLS13)
        pair = (
            openers(SUITES.get(int(server[tr.CIPHER]), ""), is_13, known, randoms[1], randoms[0])
            if known
            else None
        )
        if pair is None:
            continue
        opened = []
        for side, opener in enumerate(pair):
            stream = 2 * k + (asking[k] if side == 0 else 1 - asking[k])
            start, end = starts[2 * k + side], runs.run_start[runs.run_bounds[stream] + 1]
            found = _open_side(runs.data[start:end].tobytes(), opener, is_13)
            found.ends = [int(start) + place for place in found.ends]
            found.rest += int(runs.run_start[runs.run_bounds[stream + 1]] - end)
            opened.append(found)
        flows.append(k)
        alpn.append(_alpn(opened[1].handshake) if is_13 else None)
        # Streams of ByteRuns are the client's of the connection first, whoever asks.
        sides.extend(opened if asking[k] == 0 else opened[::-1])
    unopened = sum(side.rest for side in sides)
    return Found(flows, (_inner(runs, asking, flows, sides),) if flows else (), alpn, unopened)


def _inner(runs: ByteRuns, asking: NDArray[np.int64], flows: list[int], sides: list[_Opened]) -> Inner:
    pieces = [piece for side in sides for piece in side.data]
    ends = np.array([end for side in sides for end in side.ends], np.int64)
    rows = runs.ready_row_at(ends)
    sizes = np.array([sum(map(len, side.data)) for side in sides], np.int64)
    # A stream without data has no run.
    there = sizes > 0
    run_bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(there)])
    run_start = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[there])])
    streams = (np.array(flows)[:, None] * 2 + np.arange(2)).ravel()
    whole = np.array([side.rest == 0 for side in sides])
    opened = runs.with_bytes(
        np.frombuffer(bytearray().join(pieces), np.uint8),
        np.cumsum([0, *map(len, pieces)])[:-1].astype(np.int64),
        flow_id=runs.flow_id[flows],
        began=np.ones(len(sides), np.bool_),
        fin=np.where(whole & (runs.fin[streams] != NOWHERE), sizes, NOWHERE),
        run_bounds=run_bounds,
        run_start=run_start,
        run_offset=np.zeros(int(there.sum()), np.int64),
        piece_row=rows,
        piece_ready=rows,
    )
    return Inner(opened, None, asking[flows])
