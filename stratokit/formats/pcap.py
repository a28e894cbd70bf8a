"""pcap: libpcap's classic format (draft-ietf-opsawg-pcap), with micro- or nanoseconds, in either byte order.

Behind the header (pcap_header) a record: seconds 4, fraction 4, captured length 4, original length 4;
Kuznetzov's variant adds 8 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stratokit.errors import FormatError
from stratokit.formats import pcap_header
from stratokit.formats.frames import ETHERNET, RAW_IP, Damage, FrameBatch, Interface
from stratokit.formats.output import FileWriter
from stratokit.formats.packet_rows import (
    BATCH_ROWS,
    BUFFER_BYTES,
    ETHERNET_HEADER,
    FirstSightings,
    pieces,
    put_ethernet,
    times_of,
    value_buffers,
)
from stratokit.formats.pcap_header import FRAME_MAX, HEADER, LONG_FRAMES, PERHAPS, SWAPPED, Header
from stratokit.formats.registry import Format
from stratokit.formats.source import WINDOW_BYTES, SourceReader
from stratokit.formats.tables import conform
from stratokit.kernels import kernel, routine

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from stratokit.formats.pcapng.cold import ColdBlock

i64: Any = np.int64

RECORD = 16
BILLION = 1_000_000_000
SECONDS_MAX = (1 << 32) - 1
IF_FCSLEN = 13
BATCH_FRAMES = 1 << 18
WHOLE, MORE, BAD = 0, 1, 2


@routine
def _word(data: np.ndarray, at: int, big: bool) -> Any:
    """An unsigned 32-bit number; the caller has checked that its bytes are there."""
    a, b, c, d = i64(data[at]), i64(data[at + 1]), i64(data[at + 2]), i64(data[at + 3])
    if big:
        return a << 24 | b << 16 | c << 8 | d
    return d << 24 | c << 16 | b << 8 | a


@kernel
def _walk(
    data: np.ndarray,
    at: int,
    big: bool,
    unit_ns: int,
    header: int,
    frame_max: int,
    swapped: int,
    offsets: np.ndarray,
    cap_lens: np.ndarray,
    orig_lens: np.ndarray,
    ts_ns: np.ndarray,
) -> tuple[int, int, int]:
    """Walk records from `at`: their number, where the next one begins, and why the walk ended."""
    size = len(data)
    for i in range(len(offsets)):
        if at + header > size:
            return i, at, MORE
        length, orig_len = _word(data, at + 8, big), _word(data, at + 12, big)
        if swapped == SWAPPED or (swapped == PERHAPS and length > orig_len):
            length, orig_len = orig_len, length
        if length > frame_max:
            return i, at, BAD
        if at + header + length > size:
            return i, at, MORE
        ts_ns[i] = _word(data, at, big) * BILLION + _word(data, at + 4, big) * unit_ns
        orig_lens[i] = orig_len
        cap_lens[i] = length
        offsets[i] = at + header
        at += header + length
    return len(offsets), at, WHOLE


class PcapReader(SourceReader):
    """Reads a pcap file in windows. When it ends early, `damage` says where and why."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        head = self._source.window(0, HEADER).tobytes()
        header = pcap_header.parse(head)
        if header is None:
            self._source.close()
            begins = pcap_header.is_pcap(head)
            reason = "it ends inside its header" if begins else "it does not begin as one"
            raise FormatError(f"{self._source.path} is no pcap file: {reason}")
        self.header = header
        self.link_type, self.snaplen = header.link_type, header.snaplen
        # As pcapng's if_fcslen.
        options = ((IF_FCSLEN, bytes([header.fcs_bytes])),) if header.fcs_bytes else ()
        self.interfaces = [Interface(link_type=self.link_type, snaplen=self.snaplen, options=options)]
        self.damage: Damage | None = None
        # What only pcapng has.
        self.processes: list[tuple[int, str]] = []
        self.skipped_blocks = 0

    @property
    def cold(self) -> list[ColdBlock]:
        """The header as pcapng says it, so that a writer of either format can say it again."""
        from stratokit.formats.pcapng.cold import of_one_interface

        return of_one_interface(self.interfaces[0], 9 if self.header.unit_ns == 1 else 6)

    def batches(self) -> Iterator[FrameBatch]:
        """All frames, at most BATCH_FRAMES at once."""
        start, at, size = HEADER, 0, WINDOW_BYTES
        window = self._source.window(start, size)
        while True:
            batch, at, state = self._batch(window, at)
            if len(batch.offsets):
                yield batch
            if state == BAD:
                self.damage = Damage("file_damaged", start + at, pcap_header.IMPOSSIBLE)
                return
            if state == MORE:
                if at == 0 and len(window) < size:
                    break
                # A record that does not fit the window gets a larger one.
                size = WINDOW_BYTES if at else 2 * size
                start, at = start + at, 0
                window = self._source.window(start, size)
        if len(window) or self._source.broken:
            reason = self._source.broken or pcap_header.CUT
            self.damage = Damage("file_cut", start, reason)

    def _batch(self, window: np.ndarray, at: int) -> tuple[FrameBatch, int, int]:
        header = self.header
        most = min(BATCH_FRAMES, max(len(window) - at, 0) // header.record + 1)
        offsets, ts_ns = np.empty(most, np.int64), np.empty(most, np.int64)
        cap_lens, orig_lens = np.empty(most, np.uint32), np.empty(most, np.uint32)
        count, at, state = _walk(
            window,
            at,
            header.big,
            header.unit_ns,
            header.record,
            header.frame_max,
            header.swapped,
            offsets,
            cap_lens,
            orig_lens,
            ts_ns,
        )
        none, unset = np.zeros(count, np.int64), np.zeros(count, np.uint8)
        batch = FrameBatch(
            window,
            offsets[:count],
            cap_lens[:count],
            orig_lens[:count],
            np.full(count, self.link_type, np.uint16),
            ts_ns[:count],
            np.zeros(count, np.uint32),
            none,
            none,
            unset.astype(np.bool_),
            unset,
            np.full(count, -1, np.int32),
        )
        return batch, at, state


COLUMNS = ("frame", "ts", "link_type", "orig_len", "data")


@kernel
def _fill(
    out: np.ndarray,
    ends: np.ndarray,
    first: int,
    last: int,
    data: np.ndarray,
    starts: np.ndarray,
    cap_lens: np.ndarray,
    orig_lens: np.ndarray,
    headers: np.ndarray,
    ts_ns: np.ndarray,
    unit_ns: int,
) -> None:
    """Write the records of packets `first` to `last`, little-endian."""
    for i in range(first, last):
        at = ends[i] - ends[first]
        seconds = min(ts_ns[i] // BILLION, SECONDS_MAX)
        fraction = (ts_ns[i] - seconds * BILLION) // unit_ns  # of a later time it takes what is too much
        for number in (seconds, fraction, i64(cap_lens[i]), i64(orig_lens[i])):
            for k in range(4):
                out[at + k] = number >> 8 * k & 255
            at += 4
        size = i64(cap_lens[i])
        if headers[i]:
            size -= ETHERNET_HEADER
            at = put_ethernet(out, at, data, starts[i], size)
        for k in range(size):
            out[at + k] = data[starts[i] + k]


class PcapWriter(FileWriter):
    """Writes packet rows as pcap: one link type, a packet that was seen twice once.

    Where the packets come from a file of one link type, the header says what that file's did. Else times are
    in nanoseconds, and an Ethernet header is put before raw IP, so that interfaces of both kinds agree.

    Args:
        path: where the file shall be.
        metadata: of the capture; may describe the file that it came from.
        interfaces: the file has the link type of the first one when no packet comes.
        ethernet: False leaves raw IP as it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, str],
        interfaces: Iterable[Interface] = (),
        *,
        ethernet: bool = True,
    ) -> None:
        super().__init__(path)
        self._source = _header_of(metadata)
        self._ethernet = ethernet and self._source is None
        self._link_type: int | None = self._source.link_type if self._source else None
        if self._source:
            self._begin(self._source)
        self._default = next((self._written(i.link_type) for i in interfaces), ETHERNET)
        self._sightings = FirstSightings()
        self._buffer = np.empty(BUFFER_BYTES, np.uint8)

    def _written(self, link_type: int) -> int:
        return ETHERNET if self._ethernet and link_type in RAW_IP else link_type

    def _begin(self, header: Header) -> None:
        self._link_type = header.link_type
        self._unit_ns = header.unit_ns
        with self._output.errors():
            self._output.file.write(pcap_header.pack(header))

    def write(self, table: pa.Table) -> None:
        """Add packets, in order of time."""
        for batch in conform(table, COLUMNS).to_batches(max_chunksize=BATCH_ROWS):
            kept = self._sightings.of(batch)
            if kept.num_rows:
                self._write_batch(kept)

    def _write_batch(self, batch: pa.RecordBatch) -> None:
        link_types = batch["link_type"].fill_null(ETHERNET).to_numpy(zero_copy_only=False)
        raw = np.isin(link_types, RAW_IP) & self._ethernet
        written = np.unique(np.where(raw, ETHERNET, link_types)).tolist()
        if self._link_type is None:
            self._begin(_plain_header(written[0]))
        if written != [self._link_type]:
            raise FormatError("pcap holds one link type, but this capture has several: write a .pcapng file")
        headers = np.where(raw, ETHERNET_HEADER, 0)
        data, starts = value_buffers(batch["data"], np.int64)
        cap_lens = np.minimum(np.diff(starts) + headers, LONG_FRAMES.get(written[0], FRAME_MAX))
        orig_lens = batch["orig_len"].fill_null(0).to_numpy(zero_copy_only=False) + headers
        if self._source is None:
            orig_lens = np.maximum(orig_lens, cap_lens)
        ends = np.concatenate([[0], np.cumsum(cap_lens + RECORD)])
        ts = times_of(batch)
        for first, last in pieces(ends):
            size = int(ends[last] - ends[first])
            if size > len(self._buffer):
                self._buffer = np.empty(size, np.uint8)
            _fill(
                self._buffer, ends, first, last, data, starts, cap_lens, orig_lens, headers, ts, self._unit_ns
            )
            with self._output.errors():
                self._output.file.write(self._buffer[:size].data)

    def _finish(self) -> None:
        if self._link_type is None:
            self._begin(_plain_header(self._default))


def _plain_header(link_type: int) -> Header:
    return Header(link_type=link_type, snaplen=FRAME_MAX, unit_ns=1)


def _header_of(metadata: Mapping[str, str]) -> Header | None:
    """What the header of the source file said, or would have said; None when its link types differ."""
    from stratokit.formats.pcapng import cold, reader

    found = [reader.read_interface(body, "<") for body in cold.interfaces(metadata)]
    if len({interface.link_type for interface, _ in found}) != 1:
        return None
    snaplens = [interface.snaplen or FRAME_MAX for interface, _ in found]
    checksums = [dict(interface.options).get(IF_FCSLEN, b"\0") for interface, _ in found]
    return Header(
        link_type=found[0][0].link_type,
        snaplen=max(snaplens),
        unit_ns=1000 if all(reader.in_microseconds(clock) for _, clock in found) else 1,
        fcs_bytes=checksums[0][0] if len(set(checksums)) == 1 and checksums[0] else 0,
    )


FORMAT = Format("pcap", pcap_header.is_pcap, PcapReader, PcapWriter)
