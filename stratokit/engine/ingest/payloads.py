"""Payload of segments between two local sockets: recorded once, out of the sender (bpf/packets.c). The record
of the segment's way in has its headers, and the time of the record that has all of it.

Both are found together by that time and by the headers, but for what changes on the way (see `sightings`).
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.engine.ingest.sightings import packet_hashes
from stratokit.formats import events
from stratokit.kernels import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.formats.events import Batch

FIELD = "sent_ns"
OUT = 2
SENT_NS = 1 << 25  # as in bpf/packets.c: later than this after its way out a segment has its own payload
# So many windows are looked through at most, whatever times the records have.
WINDOWS_MOST = 8
_MIX = np.uint64(0x9E3779B97F4A7C15)
TCP = 6


@kernel
def _header_ends(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray, out: np.ndarray) -> None:
    """Length of the IP and TCP headers of each packet, 0 where it has others or not the whole of them. As in
    bpf/packets.c no IP options (RFC 791) or extension headers (RFC 8200) are looked through.
    """
    for i in range(starts.size):
        at, transport = starts[i], 0
        if lengths[i] >= 40 and data[at] == 0x45 and data[at + 9] == TCP:
            transport = 20
        elif lengths[i] >= 60 and data[at] >> 4 == 6 and data[at + 6] == TCP:
            transport = 40
        end = transport + (data[at + transport + 12] >> 4) * 4 if transport else 0
        out[i] = end if end <= lengths[i] else 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Sent:
    """Records of a window that may have the payload of others, sorted by key."""

    keys: NDArray[np.uint64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    data: NDArray[np.uint8]
    last_ns: int


class Payloads:
    """Gives segments their payload again. Keeps the windows of the last SENT_NS, at most WINDOWS_MOST."""

    def __init__(self) -> None:
        self._windows: collections.deque[_Sent] = collections.deque(maxlen=WINDOWS_MOST)
        self.missing = 0  # segments whose payload was not found

    def remember(self, batch: Batch) -> None:
        """A window comes that may have the payload of later ones."""
        fixed, (starts, lengths) = batch.fixed, batch.sections["data"]
        sent = np.flatnonzero(fixed["direction"] == OUT)
        heads = _heads(batch.data, starts[sent], lengths[sent])
        more = (heads > 0) & (heads < lengths[sent])
        sent, heads = sent[more], heads[more]
        if not sent.size:
            return
        keys = _keys(batch.data, starts[sent], heads, fixed["ts_ns"][sent], fixed["orig_len"][sent])
        order = np.argsort(keys, kind="stable")
        sent = sent[order]
        last_ns = int(fixed["ts_ns"].max())
        self._windows.append(_Sent(keys[order], starts[sent], lengths[sent], batch.data, last_ns))

    def whole(self, batch: Batch) -> tuple[Any, Any, Any]:
        """Data, offsets and lengths of all packets of a window, payload put in where it was left out."""
        fixed, (starts, lengths) = batch.fixed, batch.sections["data"]
        if FIELD not in (fixed.dtype.names or ()):
            return *events.gather(batch.data, starts, lengths), lengths
        oldest = int(fixed["ts_ns"].min()) - SENT_NS
        while self._windows and self._windows[0].last_ns < oldest:
            self._windows.popleft()
        self.remember(batch)
        left = np.flatnonzero(fixed[FIELD])
        heads = lengths[left]
        keys = _keys(batch.data, starts[left], heads, fixed[FIELD][left], fixed["orig_len"][left])
        # Not more than headers: damaged otherwise.
        is_head = _heads(batch.data, starts[left], heads) == heads
        self.missing += int((~is_head).sum())
        left, keys = left[is_head], keys[is_head]
        whole = lengths.copy()
        found = []
        for window in reversed(self._windows):
            at = np.minimum(np.searchsorted(window.keys, keys), window.keys.size - 1)
            same = window.keys[at] == keys
            found.append((window, left[same], at[same]))
            whole[left[same]] = window.lengths[at[same]]
            left, keys = left[~same], keys[~same]
        self.missing += int(left.size)
        offsets = np.zeros(starts.size + 1, np.int64)
        np.cumsum(whole, out=offsets[1:])
        out = np.empty(int(offsets[-1]), np.uint8)
        events.copy(batch.data, starts, lengths, offsets, out)
        for window, rows, at in found:
            heads = lengths[rows]
            rest = window.lengths[at] - heads
            events.copy(window.data, window.starts[at] + heads, rest, offsets[rows] + heads, out)
        return out, offsets, whole


def _heads(data: Any, starts: Any, lengths: Any) -> Any:
    out = np.empty(starts.size, np.int64)
    _header_ends(data, starts.astype(np.int64), lengths.astype(np.int64), out)
    return out


def _keys(data: Any, starts: Any, heads: Any, ts_ns: Any, orig_len: Any) -> Any:
    """One number for when each went out, its headers, and its length."""
    return (packet_hashes(data, starts, heads) ^ ts_ns) * _MIX ^ orig_len.astype(np.uint64)
