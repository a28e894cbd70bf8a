"""Which bytes of which rows are to be hidden, and which rows may keep what lies behind their headers.

Kept are: TCP conversations of HTTP/1 (with secrets hidden), of TLS and of DNS, and datagrams of DNS and QUIC.
HTTP/2 (its fields are compressed), WebSocket, and whatever is not recognised is cut, also in the plaintext of
TLS.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.engine.redact import lines
from stratokit.streams.segments import NOWHERE, grouped, stream_offsets
from stratokit.streams.sides import SIDE_COLUMNS, VIEWS, column, with_sides

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.engine.capture import Capture
    from stratokit.engine.redact import Redaction

_TCP, _UDP = 6, 17
_OPEN_PORTS = (53, 5353, 5355, 443)  # DNS, and QUIC, which is encrypted
_GROUP_BYTES = 1 << 27
_SWITCHED = 101
# Signs of a session that goes on in another protocol.
_ELSEWHERE = (b"HTTP/1.1 101", b"PRI * HTTP/2.0", b"CONNECT ")
_HTTP1 = rb"^(HTTP/1\.|[A-Z]{3,16} )"


@dataclasses.dataclass(frozen=True, slots=True)
class Hidden:
    """What to hide in rows of a kind: `rows` (ascending), where in their data it begins, how long it is.

    `whole`: per row, whether it keeps what lies behind its headers.
    """

    rows: NDArray[np.int64]
    begin: NDArray[np.int64]
    size: NDArray[np.int64]
    whole: NDArray[np.bool_]
    filler: int = lines.MASK

    def within(self, first: int, count: int) -> tuple[Any, Any, Any]:
        """(row, begin, size) of rows first to first + count, with rows counted from `first`."""
        low, high = np.searchsorted(self.rows, [first, first + count])
        return self.rows[low:high] - first, self.begin[low:high], self.size[low:high]


def hidden_of(capture: Capture, how: Redaction) -> dict[str, Hidden]:
    """By kind of rows; a kind that is not there has nothing that could stay."""
    if not how.hides:
        return {}
    fields, queries = "headers" in how.profiles, "query" in how.profiles
    found = {}
    kinds = {kind for file in capture.files for kind in file.rows}
    if "packet" in kinds:
        found["packet"] = _packets(_closed(capture), fields, queries)
    if "plaintext" in kinds:
        found["plaintext"] = _plaintext(capture, fields, queries)
    return found


def _closed(capture: Capture) -> Capture:
    """The same capture, without what opens TLS: that stays closed in what is written."""
    from stratokit.engine.capture import Capture

    closed = Capture.open(capture.paths)
    closed.secrets = {}
    closed.has_plaintext = False
    closed.passes.expected.update(("http", "http2", "tls", "websocket", "dns"))
    return closed


def _packets(capture: Capture, fields: bool, queries: bool) -> Hidden:
    flows = {name: _flows(capture, name) for name in ("http", "http2", "tls", "websocket", "dns")}
    is_http = flows["http"] - flows["http2"] - flows["websocket"] - _led_elsewhere(capture)
    is_open = is_http | ((flows["tls"] | flows["dns"]) - flows["http"] - flows["http2"] - flows["websocket"])
    rows = capture.rows("packet").with_row_index("row")
    outer = (
        pl.col("tunnel_depth").fill_null(0).eq(0)
        & pl.col("fragment_id").is_null()
        & pl.col("datagram").is_null()
    )
    of_dns = pl.any_horizontal(pl.col(name).is_in(_OPEN_PORTS) for name in ("src_port", "dst_port"))
    flow = pl.col("flow_id").cast(pl.Int64)
    stays = pl.when(pl.col("ip_proto") == _TCP).then(flow.is_in(sorted(is_open))).when(
        pl.col("ip_proto") == _UDP
    ).then(of_dns).otherwise(pl.lit(value=False))  # fmt: skip
    preface = pl.col("data").bin.contains(b"PRI * HTTP/2.0")
    whole = rows.select((stays & outer & ~preface).fill_null(value=False)).collect().to_series().to_numpy()
    parts = [
        _marked(part, fields, queries)
        for part in _groups(rows.filter(pl.col("ip_proto") == _TCP, flow.is_in(sorted(is_http))))
    ]
    return _joined(parts, whole)


def _flows(capture: Capture, name: str) -> set[int]:
    wanted = capture.table(name)
    if name == "http":
        wanted = wanted.filter(pl.col("stream_id").is_null())
    return {int(flow) for flow in wanted.select("flow_id").drop_nulls().unique().collect().to_series()}


def _led_elsewhere(capture: Capture) -> set[int]:
    """Conversations that went on in another protocol, by CONNECT or Upgrade."""
    led = (pl.col("method") == "CONNECT") | (pl.col("status") == _SWITCHED)
    return {int(flow) for flow in capture.table("http").filter(led).select("flow_id").collect().to_series()}


def _groups(rows: pl.LazyFrame) -> Any:
    """Segments of a few conversations at a time."""
    columns = ["row", *SIDE_COLUMNS, "tcp_seq", "payload_len", "payload_offset", "data"]
    rows = rows.select(list(dict.fromkeys(columns)))
    sizes = rows.group_by("flow_id").agg(pl.col("payload_len").cast(pl.Int64).sum()).sort("flow_id").collect()
    group = (sizes["payload_len"].cum_sum() // _GROUP_BYTES).alias("group")
    for _, part in sizes.group_by(group, maintain_order=True):
        low, high = part["flow_id"][0], part["flow_id"][-1]
        yield rows.filter(pl.col("flow_id").is_between(low, high)).collect()


def _marked(packets: pl.DataFrame, fields: bool, queries: bool) -> tuple[Any, Any, Any]:
    """(row, begin, size) of what is to be hidden in segments."""
    packets = with_sides(packets)
    key = column(packets, "flow_id", np.int64)
    key = (np.unique(key, return_inverse=True)[1] * VIEWS + column(packets, "view", np.int64)) * 2
    key = key + packets["from_client"].to_numpy()
    order, bounds = grouped(key.astype(np.int64), int(key.max()) + 1 if key.size else 0)
    length = column(packets, "payload_len", np.int64)
    offsets, began, _, _ = stream_offsets(
        column(packets, "tcp_seq", np.uint32), column(packets, "tcp_flags", np.uint16), length, order, bounds
    )
    stream = np.repeat(np.arange(bounds.size - 1), np.diff(bounds))
    order = order[np.lexsort((offsets[order], stream))]
    # A segment that belongs nowhere is a stream of its own, of which nothing is known.
    begin = column(packets, "payload_offset", np.int64)
    payload = packets.select(
        pl.col("data").bin.slice(pl.col("payload_offset"), pl.col("payload_len"))
    ).to_series()
    offsets = np.where(offsets == NOWHERE, np.int64(1) << 60, offsets)
    found = _hide_in(payload, order, offsets, length, bounds, began, fields, queries)
    rows = packets["row"].to_numpy().astype(np.int64)
    return rows[found[0]], begin[found[0]] + found[1], found[2]


def _hide_in(
    payload: pl.Series,
    order: Any,
    offsets: Any,
    sent: Any,
    bounds: Any,
    began: Any,
    fields: bool,
    queries: bool,
) -> tuple[Any, Any, Any]:
    """(index, begin, size) within `payload` of what is to be hidden."""
    pieces = payload.fill_null(b"").gather(order)
    taken = pieces.bin.size().to_numpy().astype(np.int64)
    # A byte between pieces keeps what is marked in them apart.
    data = np.frombuffer(b"\0".join(pieces.to_list()) + b"\0", np.uint8)
    start = np.concatenate([[0], np.cumsum(taken + 1)])[:-1].astype(np.int64)
    hidden = np.zeros(data.size, np.uint8)
    # Before the SYN's number there is no byte.
    at = offsets[order].astype(np.int64)
    words = lines.patterns()
    lines.mark(
        data, start, taken, at, sent[order].astype(np.int64), bounds, began, words, fields, queries, hidden
    )
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden, [0]]).astype(np.int8)))
    first, last = edges[::2], edges[1::2]
    piece = np.searchsorted(start, first, "right") - 1
    return order[piece], first - start[piece], last - first


def _plaintext(capture: Capture, fields: bool, queries: bool) -> Hidden:
    """The same for sessions of TLS; those that are not HTTP/1 keep nothing."""
    rows = capture.rows("plaintext").with_row_index("row").select(
        "row", "pid", "tls_session", "direction", "tls_position", "tls_began", "orig_len", "data"
    ).collect()  # fmt: skip
    session = ("pid", "tls_session")
    first = pl.col("data").sort_by("tls_position").first().bin.slice(0, 20)
    heads = rows.group_by(*session, "direction").agg(head=first)
    of_http1 = heads.with_columns(text=pl.col("head").map_elements(_is_http1, return_dtype=pl.Boolean))
    open_ = of_http1.group_by(session).agg(whole=pl.col("text").all())
    elsewhere = pl.any_horizontal(pl.col("data").bin.contains(sign) for sign in _ELSEWHERE)
    led = rows.group_by(session).agg(led=elsewhere.fill_null(value=False).any())
    open_ = open_.join(led, on=session).select(*session, pl.col("whole") & ~pl.col("led"))
    rows = rows.join(open_, on=session, how="left", maintain_order="left")
    whole = rows["whole"].fill_null(value=False).to_numpy()
    kept = rows.filter(pl.col("whole").fill_null(value=False))
    if kept.is_empty():
        return _joined([], whole)
    key = (
        kept.select(pl.struct(*session, "direction").rank("dense") - 1)
        .to_series()
        .to_numpy()
        .astype(np.int64)
    )
    order, bounds = grouped(key, int(key.max()) + 1)
    position = column(kept, "tls_position", np.int64)
    stream = np.repeat(np.arange(bounds.size - 1), np.diff(bounds))
    order = order[np.lexsort((position[order], stream))]
    began = kept["tls_began"].to_numpy()[order[bounds[:-1]]] & (position[order[bounds[:-1]]] == 0)
    sent = column(kept, "orig_len", np.int64)
    found = _hide_in(kept["data"], order, position, sent, bounds, began, fields, queries)
    numbers = kept["row"].to_numpy().astype(np.int64)
    return _joined([(numbers[found[0]], found[1], found[2])], whole)


def _is_http1(head: bytes) -> bool:
    import re

    return re.match(_HTTP1, head) is not None and not head.startswith(b"PRI * HTTP/2")


def _joined(parts: list[tuple[Any, Any, Any]], whole: Any) -> Hidden:
    rows, begin, size = (
        np.concatenate([np.zeros(0, np.int64), *(part[i] for part in parts)]) for i in range(3)
    )
    order = np.argsort(rows, kind="stable")
    return Hidden(rows[order], begin[order], size[order], whole)
