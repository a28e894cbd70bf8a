"""pcapng: packets of a capture for Wireshark and everything that reads libpcap's files.

Little-endian, nanoseconds. So that libpcap takes the file, all interfaces have one link type where that is
possible (raw IP gets an Ethernet header) and one snap length. A packet says whose it is three times: as a
Darwin process block (Wireshark >= 4.6 shows it), as pid and tid (the standard option), and as a comment,
which everything shows.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pcapng.writer import FileWriter as BlockWriter

from stratokit.formats.frames import ETHERNET, RAW_IP, Interface
from stratokit.formats.output import FileWriter
from stratokit.formats.packet_rows import (
    BATCH_ROWS,
    BUFFER_BYTES,
    ETHERNET_HEADER,
    FirstSightings,
    group_rows,
    pieces,
    times_of,
    value_buffers,
)
from stratokit.formats.pcapng import blocks, fill
from stratokit.formats.pcapng.cold import framed
from stratokit.formats.tables import conform
from stratokit.schema import load

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

COLUMNS = (
    "frame",
    "ts",
    "interface",
    "ifindex",
    "netns",
    "direction",
    "link_type",
    "orig_len",
    "data",
    "pid",
    "tid",
    "comm",
    "process_start",
    "container_id",
    "pod",
    "namespace",
    "gso_segments",
    "comment",
)
# Rows that share all of these share their options.
OPTION_COLUMNS = (
    "direction",
    "segmented",
    "pid",
    "tid",
    "comm",
    "process_start",
    "container_id",
    "pod",
    "namespace",
)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def compact_comment(row: Mapping[str, Any]) -> str:
    """Whose packet it is, as key=value in a fixed order; empty when nothing is known."""
    pairs = {"pid": row["pid"], "tid": row["tid"], "comm": row["comm"]}
    if row["container_id"]:
        pairs["ctr"] = row["container_id"][:12]
    if row["pod"]:
        pairs["pod"] = f"{row['namespace']}/{row['pod']}" if row["namespace"] else row["pod"]
    known = {key: value for key, value in pairs.items() if value is not None}
    if known and row["direction"]:
        known["dir"] = row["direction"]
    return " ".join(f"{key}={value}" for key, value in known.items())


class PcapngWriter(FileWriter):
    """Writes packet rows; a packet that was seen twice is written where it comes first.

    Args:
        path: where the file shall be.
        metadata: of the capture; `host` and `version` go into the section header, `keylog` into
            a secrets block.
        interfaces: known ones; others are added when packets come from them.
        names: names by address, for Wireshark's name resolution.
        losses: rows of kind `loss`; those of packets become drop counts in front of the next packet and
        totals. comments: say in a comment whose packet it is. ethernet: put an Ethernet header before raw IP,
        so that interfaces of both kinds agree.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, str],
        interfaces: Iterable[Interface] = (),
        names: Mapping[str, Sequence[str]] | None = None,
        losses: pa.Table | None = None,
        *,
        comments: bool = True,
        ethernet: bool = True,
    ) -> None:
        super().__init__(path)
        self._ethernet = ethernet
        self._comments = comments
        self._header = blocks.section(metadata)
        # By namespace too, as each has a "lo" with index 1; None: whichever came first.
        self._interface_ids: dict[tuple[int | None, int, str, int], int] = {}
        self._delivered: list[int] = []
        self._processes: dict[tuple[Any, ...], int] = {}
        self._sightings = FirstSightings()
        self._buffer = np.empty(BUFFER_BYTES, np.uint8)
        self._span_ns = (2**63 - 1, 0)
        self._drops = _Drops(losses)
        with self._output.errors():
            self._blocks = BlockWriter(self._output.file, self._header)
            if blocks.KEY_LOG in metadata:
                body = blocks.secrets_body(metadata[blocks.KEY_LOG].encode("latin-1", "replace"))
                self._output.file.write(framed(blocks.SECRETS, body))
            for interface in interfaces:
                self._interface_id(interface)
            for block in blocks.name_blocks(self._header, names or {}):
                self._blocks.write_block(block)

    def write(self, table: pa.Table) -> None:
        """Add packets, in order of time."""
        for batch in conform(table, COLUMNS).to_batches(max_chunksize=BATCH_ROWS):
            self._write_batch(batch)

    def _write_batch(self, batch: pa.RecordBatch) -> None:
        batch = self._sightings.of(batch)
        if batch.num_rows == 0:
            return
        ts = times_of(batch)
        self._span_ns = (min(self._span_ns[0], int(ts.min())), max(self._span_ns[1], int(ts.max())))
        with self._output.errors():
            interfaces, headers = self._interfaces_of(batch)
            tails, tail_starts, tail_lens = self._tails_of(batch)
            self._write_packets(batch, ts, interfaces, headers, tails, tail_starts, tail_lens)

    def _write_packets(
        self,
        batch: pa.RecordBatch,
        ts: np.ndarray,
        interfaces: np.ndarray,
        headers: np.ndarray,
        tails: np.ndarray,
        tail_starts: np.ndarray,
        tail_lens: np.ndarray,
    ) -> None:
        data, starts = value_buffers(batch["data"], np.int64)
        comments, comment_ends = value_buffers(batch["comment"], np.int32)
        cap_lens = np.minimum(np.diff(starts) + headers, blocks.SNAPLEN)
        orig_lens = batch["orig_len"].fill_null(0).to_numpy(zero_copy_only=False) + headers
        orig_lens = np.maximum(orig_lens, cap_lens)
        dropcounts = self._drops.before(ts)
        ends = np.empty(batch.num_rows + 1, np.int64)
        fill.sizes(cap_lens, tail_lens, dropcounts, comments, comment_ends, ends)
        for first, last in pieces(ends):
            size = int(ends[last] - ends[first])
            if size > len(self._buffer):
                self._buffer = np.empty(size, np.uint8)
            fill.fill(
                self._buffer,
                ends,
                first,
                last,
                data,
                starts,
                cap_lens,
                orig_lens,
                headers,
                ts,
                interfaces,
                tails,
                tail_starts,
                tail_lens,
                dropcounts,
                comments,
                comment_ends,
            )
            self._put(self._buffer[:size], ends[first : last + 1] - ends[first], ts[first:last])

    def _put(self, data: np.ndarray, ends: np.ndarray, ts: np.ndarray) -> None:  # noqa: ARG002
        """Add blocks of packets that stand in `data` one behind the other."""
        self._output.file.write(data.data)

    def _interfaces_of(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Interface id of each packet, and the size of the header that is put before it."""
        names = ["netns", "ifindex", "interface", "link_type"]
        group, rows = group_rows([batch[name] for name in names])
        distinct = batch.select(names).take(pa.array(rows)).to_pylist()
        ids = np.empty(len(distinct), np.int64)
        headers = np.zeros(len(distinct), np.int64)
        for i, row in enumerate(distinct):
            link_type = ETHERNET if row["link_type"] is None else row["link_type"]
            name, number = row["interface"] or "", row["ifindex"] or 0
            ids[i] = self._interface_id(Interface(name, number, link_type, row["netns"]))
            if self._ethernet and link_type in RAW_IP:
                headers[i] = ETHERNET_HEADER
        interfaces = ids[group]
        for number, count in enumerate(np.bincount(interfaces, minlength=len(self._delivered))):
            self._delivered[number] += int(count)
        return interfaces, headers[group]

    def _interface_id(self, interface: Interface) -> int:
        """Id of an interface; one that is new gets its block."""
        link_type = ETHERNET if self._ethernet and interface.link_type in RAW_IP else interface.link_type
        rest = (interface.ifindex, interface.name, link_type)
        key = (interface.netns, *rest)
        if key not in self._interface_ids:
            block = blocks.interface_block(self._header, interface, link_type)
            self._blocks.write_block(block)
            self._blocks.interfaces.add(block.interface_id)
            self._interface_ids[key] = block.interface_id
            self._interface_ids.setdefault((None, *rest), block.interface_id)
            self._delivered.append(0)
        return self._interface_ids[key]

    def _tails_of(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Options that depend on direction and process: one buffer, and where each packet's are in it."""
        segmented = pa.array(batch["gso_segments"].fill_null(0).to_numpy(zero_copy_only=False) > 1)
        columns = [segmented if name == "segmented" else batch[name] for name in OPTION_COLUMNS]
        group, rows = group_rows(columns)
        distinct = pa.RecordBatch.from_arrays(columns, OPTION_COLUMNS).take(pa.array(rows))
        # Times as integers: Python has none with nanoseconds.
        distinct = distinct.set_column(
            OPTION_COLUMNS.index("process_start"), "process_start", distinct["process_start"].cast(pa.int64())
        )
        parts = [self._options(row) for row in distinct.to_pylist()]
        lens = np.array([len(part) for part in parts], np.int64)
        starts = np.cumsum(lens) - lens
        # Never empty, so that the kernel has something to index.
        return np.frombuffer(b"".join(parts) + b"\0", np.uint8), starts[group], lens[group]

    def _options(self, row: Mapping[str, Any]) -> bytes:
        flags = {"in": blocks.FLAG_IN, "out": blocks.FLAG_OUT}.get(row["direction"], 0)
        if row["segmented"]:
            flags |= blocks.FLAG_SEGMENTED
        parts = []
        if flags:
            parts.append(_option(blocks.EPB_FLAGS, struct.pack("<I", flags)))
        if row["pid"] is not None:
            parts.append(_option(blocks.EPB_PID_TID, struct.pack("<II", row["pid"], row["tid"] or 0)))
            parts.append(_option(blocks.EPB_PROCESS, struct.pack("<I", self._process_index(row))))
        comment = compact_comment(row) if self._comments else ""
        if comment:
            parts.append(_option(blocks.OPT_COMMENT, comment.encode("utf-8", "replace")))
        return b"".join(parts)

    def _process_index(self, row: Mapping[str, Any]) -> int:
        """Position of the process block in the file; a pid used again, or a new name, is a new process."""
        key = (row["pid"], row["process_start"], row["comm"])
        if key not in self._processes:
            self._blocks.write_block(blocks.process_block(self._header, row["pid"], row["comm"] or ""))
            self._processes[key] = len(self._processes)
        return self._processes[key]

    def _finish(self) -> None:
        if not self._interface_ids:
            self._interface_id(Interface())  # libpcap refuses a file without any
        if self._span_ns[0] <= self._span_ns[1]:
            for number, delivered in enumerate(self._delivered):
                # Losses are counted for the host as a whole: the first interface carries them.
                losses = self._drops.totals if number == 0 else {}
                block = blocks.statistics_block(self._header, number, self._span_ns, delivered, losses)
                self._blocks.write_block(block)


class _Drops:
    """Lost packets: totals by counter, and how many were lost before a packet."""

    def __init__(self, losses: pa.Table | None) -> None:
        self.totals: dict[str, int] = {}
        self._times = np.empty(0, np.int64)
        self._amounts = np.empty(0, np.uint64)
        if losses is None:
            return
        lossy = {c.name for c in load.counters().values() if c.loss and c.name.startswith("packet_")}
        rows = [
            (ts, counter, amount)
            for ts, counter, amount in zip(
                losses["ts"].cast(pa.int64()).to_pylist(),
                losses["counter"].to_pylist(),
                losses["amount"].to_pylist(),
                strict=True,
            )
            if counter in lossy and amount
        ]
        rows.sort()
        for _, counter, amount in rows:
            self.totals[counter] = self.totals.get(counter, 0) + amount
        self._times = np.array([ts for ts, _, _ in rows], np.int64)
        self._amounts = np.array([amount for _, _, amount in rows], np.uint64)

    def before(self, ts: np.ndarray) -> np.ndarray:
        """Packets lost before each of the packets at `ts`, which are in order; each loss counts once."""
        counts = np.zeros(len(ts), np.uint64)
        due = int(np.searchsorted(self._times, ts[-1], "right"))
        np.add.at(counts, np.searchsorted(ts, self._times[:due]), self._amounts[:due])
        self._times, self._amounts = self._times[due:], self._amounts[due:]
        return counts


def write_pcapng(
    path: str | os.PathLike[str],
    batches: Iterable[pa.Table],
    metadata: Mapping[str, str],
    interfaces: Iterable[Interface] = (),
    **options: Any,
) -> None:
    """Write all `batches` of packets; `options` are those of `PcapngWriter`."""
    with PcapngWriter(path, metadata, interfaces, **options) as writer:
        for table in batches:
            writer.write(table)
