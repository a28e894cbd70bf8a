"""Both ends of a message: when its packet was seen at either socket, and whose socket that was.

A packet between two local sockets has one frame number and two rows: out of the sender's socket, in to the
receiver's. Given the frames of requests and of their responses, `with_ends` adds what either end knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.schema.model import Column
from stratokit.streams.conversation_sums import OWNER
from stratokit.streams.plaintext import UNSEEN_FRAME

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

_SEEN = ("ts", *OWNER)
_ADDRESSES = ("src_ip", "src_port", "dst_ip", "dst_port")

END_COLUMNS = (
    Column("client_ip", "text", "Address of the client."),
    Column("client_port", "u16", "Port of the client."),
    Column("server_ip", "text", "Address of the server."),
    Column("server_port", "u16", "Port of the server."),
    Column("pid", "u32", "Process of the client; null unless it was recorded."),
    Column("comm", "text", "Its thread name."),
    Column("pod", "text", "Its pod."),
    Column("namespace", "text", "Kubernetes namespace of that pod."),
    Column("container_id", "text", "Its container."),
    Column("server_pid", "u32", "Process of the server; null unless it was recorded."),
    Column("server_comm", "text", "Its thread name."),
    Column("server_pod", "text", "Its pod."),
    Column("server_namespace", "text", "Kubernetes namespace of that pod."),
    Column("server_container_id", "text", "Its container."),
    Column(
        "server_latency_ns",
        "s64",
        "The latency at the server's own socket; the rest of it is the network's. Null unless recorded.",
        "ns",
    ),
)


def _sightings(capture: PacketSource, frames: pl.Series) -> pl.DataFrame:
    """Rows of these frames, one for each direction; of a source that holds few others, all its rows."""
    found = capture.rows("packet").select("frame", "direction", *_SEEN, *_ADDRESSES)
    if not getattr(capture, "is_chosen", False):
        found = found.join(pl.LazyFrame({"frame": frames.unique()}), on="frame", how="semi")
    rows = found.collect()
    if _each_once(rows):
        return rows
    return rows.unique(["frame", "direction"], keep="first", maintain_order=True)


def _each_once(sightings: pl.DataFrame) -> bool:
    """Whether they are in the order of their frames and none of these comes twice, as in most plain files."""
    frame = sightings["frame"].to_numpy()
    return bool((frame[1:] > frame[:-1]).all())


def _is_plain(sightings: pl.DataFrame) -> bool:
    """Whether no socket is known at which a packet was seen."""
    return sightings["direction"].null_count() == sightings.height


def with_ends(
    messages: pl.DataFrame, capture: PacketSource, request_frame: str, response_frame: str
) -> pl.DataFrame:
    """`messages` with END_COLUMNS, from the packets whose numbers stand in the two columns."""
    frames = pl.concat([messages[request_frame], messages[response_frame]]).drop_nulls()
    sightings = _sightings(capture, frames)
    messages = _with_addresses(messages, sightings, request_frame, response_frame)
    messages = _owned(messages, sightings, request_frame, response_frame)
    numbers = [name for name in messages.columns if name.endswith("frame")]
    return messages.with_columns(pl.when(pl.col(name) < UNSEEN_FRAME).then(name) for name in numbers)


def _owned(
    messages: pl.DataFrame, sightings: pl.DataFrame, request_frame: str, response_frame: str
) -> pl.DataFrame:
    """With processes at both ends and the latency at the server's."""
    if _is_plain(sightings):
        return messages.with_columns(
            *(
                pl.lit(None, sightings.schema[name]).alias(end + name)
                for end in ("", "server_")
                for name in OWNER
            ),
            server_latency_ns=pl.lit(None, pl.Int64),
        )
    for name, frame, direction in (
        ("client_request", request_frame, "out"),
        ("server_request", request_frame, "in"),
        ("server_response", response_frame, "out"),
        ("client_response", response_frame, "in"),
    ):
        seen = sightings.filter(pl.col("direction") == direction).select(
            pl.col("frame").alias(frame), *(pl.col(column).alias(f"{name}_{column}") for column in _SEEN)
        )
        messages = messages.join(seen, on=frame, how="left", maintain_order="left")
    owners = []
    for prefix, first, second in (
        ("", "client_request", "client_response"),
        ("server_", "server_response", "server_request"),
    ):
        known = pl.col(f"{first}_pid").is_not_null()
        for column in OWNER:
            value = pl.when(known).then(f"{first}_{column}").otherwise(f"{second}_{column}")
            owners.append(value.alias(prefix + column))
    served = pl.col("server_response_ts") - pl.col("server_request_ts")
    return messages.with_columns(*owners, server_latency_ns=served.dt.total_nanoseconds())


def _with_addresses(
    messages: pl.DataFrame, sightings: pl.DataFrame, request_frame: str, response_frame: str
) -> pl.DataFrame:
    """The request's source is the client, or, without a request, the response's destination."""
    packets = sightings.select("frame", *_ADDRESSES)
    if not _each_once(packets):
        packets = packets.unique("frame", keep="first", maintain_order=True).sort("frame")
    frame = messages.select(pl.coalesce(request_frame, response_frame)).to_series()
    row = packets["frame"].search_sorted(frame.fill_null(0))
    row = row.set(row == packets.height, None)
    there = packets.select(pl.all().gather(row))
    known = there["frame"] == frame
    asked = messages[request_frame].is_not_null()
    ends = {"client": asked, "server": ~asked}
    return messages.with_columns(
        pl.when(known)
        .then(pl.when(is_source).then(there[f"src_{name}"]).otherwise(there[f"dst_{name}"]))
        .alias(f"{end}_{name}")
        for end, is_source in ends.items()
        for name in ("ip", "port")
    )
