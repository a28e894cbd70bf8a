"""What TCP analysis found, as columns and filter fields of packets."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from helpers.frames import eth, ipv4, pcap, tcp, udp

from stratokit.engine.capture import Capture
from stratokit.engine.packet_analysis import FIELDS
from stratokit.streams.tcp_flags import DUPLICATE_ACK, FLAG_NAMES, RETRANSMISSION

SAMPLES = Path(__file__).parents[2] / "sample_captures"
NAMED = ["frame", "direction", "tcp_analysis"]


TO, BACK = ("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")
# Ends, flags, sequence and acknowledgment number, payload.
SEGMENTS = (
    (TO, 0x02, 99, 0, b""),
    (BACK, 0x12, 499, 100, b""),
    (TO, 0x10, 100, 500, b""),
    (TO, 0x18, 100, 500, b"question"),
    (BACK, 0x10, 500, 108, b""),
    (BACK, 0x10, 500, 108, b""),
    (TO, 0x18, 100, 500, b"question"),
    (BACK, 0x10, 600, 108, b""),
)


@pytest.fixture
def troubled(tmp_path: Path) -> Capture:
    frames = [eth(ipv4(udp(b"no segment"), proto=17))]
    for (src, dst), flags, seq, ack, payload in SEGMENTS:
        ports = (40000, 80) if (src, dst) == TO else (80, 40000)
        frames.append(eth(ipv4(tcp(payload, *ports, seq, ack, flags), source=src, destination=dst)))
    path = tmp_path / "troubled.pcap"
    path.write_bytes(pcap(frames))
    return Capture.open(path)


@pytest.fixture(params=["mixed", "troubled"])
def capture(request: pytest.FixtureRequest, troubled: Capture) -> Capture:
    return troubled if request.param == "troubled" else Capture.open(SAMPLES / "mixed.parquet")


def test_each_sighting_of_a_packet_has_what_was_found_there(capture: Capture) -> None:
    packets = capture.table("packets", columns=NAMED).collect()
    segments = capture.table("segments").collect()
    judged = packets.filter(pl.col("tcp_analysis").is_not_null())
    assert judged.height == segments.height > 0
    assert judged["tcp_analysis"].to_list() == segments["tcp_analysis"].to_list()
    assert judged["frame"].to_list() == segments["frame"].to_list()


def test_only_segments_of_tcp_have_any(capture: Capture) -> None:
    rows = capture.table("packets", columns=[*NAMED, "ip_proto", "tcp_flags"]).collect()
    others = rows.filter(pl.col("ip_proto").ne_missing(6) | pl.col("tcp_flags").is_null())
    assert others["tcp_analysis"].null_count() == others.height


@pytest.mark.parametrize("field", [field.name for field in FIELDS])
def test_fields_find_the_packets_of_their_segments(capture: Capture, field: str) -> None:
    packets = capture.table("packets", field, ["frame"]).collect()
    segments = capture.table("segments", field).collect()
    assert packets["frame"].to_list() == segments["frame"].to_list()


def test_what_is_found_combines_with_other_fields(troubled: Capture) -> None:
    found = troubled.table("packets", columns=["tcp_analysis"]).collect().to_series().to_list()
    retransmission = 1 | 1 << FLAG_NAMES.index("spurious_retransmission")
    duplicate, lost = DUPLICATE_ACK, 1 << FLAG_NAMES.index("lost_segment")
    assert found == [None, 0, 0, 0, 0, 0, duplicate, retransmission, lost]
    for text, frames in (
        ("tcp.analysis.flags", [7, 8, 9]),
        ("tcp.analysis.flags && ip.src == 10.0.0.2", [7, 9]),
        ("tcp.analysis.retransmission || udp", [1, 8]),
        ("tcp.analysis.duplicate_ack_num == 1", [7]),
        ("tcp.analysis.ack_rtt && frame.number > 3", [4, 6, 9]),
    ):
        assert troubled.where(text).selected_rows("packet").collect()["frame"].to_list() == frames, text


def test_nobody_pays_who_does_not_ask(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratokit.streams.segment_table.build", None)
    monkeypatch.setattr(Capture, "built", _only_packets(Capture.built))
    assert "tcp_analysis" not in capture.table("packets").collect().columns
    assert capture.table("packets", "tcp.port >= 1").collect().height
    assert capture.where("tcp").selected_rows("packet").collect().height


def _only_packets(built):  # type: ignore[no-untyped-def]
    def asked(self: Capture, name: str) -> pl.LazyFrame:
        assert name == "packets"
        return built(self, name)

    return asked


def test_bits_are_in_the_order_of_their_names() -> None:
    assert (FLAG_NAMES[0], FLAG_NAMES[6]) == ("retransmission", "duplicate_ack")
    assert (RETRANSMISSION, DUPLICATE_ACK) == (1, 1 << 6)


@pytest.mark.parametrize(
    "where",
    [
        "tcp.srcport == 40000 && tcp.analysis.flags",
        "tcp.analysis.flags && tcp.srcport == 40000",
        "tcp && (tcp.srcport == 40000 and (ip.addr == 10.0.0.1 and tcp.analysis.flags))",
    ],
)
def test_what_else_a_filter_asks_goes_into_the_scan(troubled: Capture, where: str) -> None:
    found = troubled.table("packets", where, columns=["frame"])
    plan = found.explain()
    assert "SELECTION" in plan
    assert "src_port" in plan[plan.index("SELECTION") :]
    flagged = troubled.table("packets", columns=["frame", "src_port", "tcp_analysis"]).filter(
        pl.col("src_port") == 40000, pl.col("tcp_analysis") != 0
    )
    assert found.collect()["frame"].to_list() == flagged.collect()["frame"].to_list() != []


def test_a_choice_of_fields_from_both_stays_whole(troubled: Capture) -> None:
    frames = troubled.table("packets", "udp || tcp.analysis.retransmission", columns=["frame"]).collect()
    assert frames["frame"].to_list() == [1, 8]


def test_numbers_of_conversations_count_all_of_them_beside_other_conditions(troubled: Capture) -> None:
    streams = troubled.table("packets", "tcp.stream == 0 || tcp.analysis.flags", columns=["frame"])
    both = troubled.table(
        "packets", "tcp.dstport == 40000 && (tcp.stream == 0 || tcp.analysis.flags)", columns=["frame"]
    )
    ports = troubled.table("packets", "tcp.dstport == 40000", columns=["frame"]).collect()["frame"]
    assert both.collect()["frame"].to_list() == [f for f in streams.collect()["frame"] if f in set(ports)]
