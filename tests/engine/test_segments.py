"""Segments of one recording are one capture: conversations go on, surroundings stand once."""

import dataclasses

import polars as pl
import pytest

from stratokit.engine.facts import FileFacts
from stratokit.engine.segments import Row, as_rows

SECOND = 1_000_000_000
SYN, ACK, SYN_ACK = 2, 16, 18
PACKET = {
    "frame": pl.UInt64,
    "flow_id": pl.UInt64,
    "icmp_flow_id": pl.UInt64,
    "ip_proto": pl.UInt8,
    "vlan": pl.UInt16,
    "src_ip": pl.String,
    "src_port": pl.UInt16,
    "dst_ip": pl.String,
    "dst_port": pl.UInt16,
    "tcp_flags": pl.UInt16,
}


@dataclasses.dataclass
class Made:
    """A segment by hand."""

    number: int
    frames: dict
    recording: str = "a"

    @property
    def facts(self):
        place = {"recording": self.recording, "number": self.number, "last": self.number}
        return FileFacts(None, "parquet", 0, {}, extra={"segment": place})

    def rows(self, kind):
        return self.frames[kind].lazy()


def address(port):
    """Servers have one address, clients another."""
    return "2.2.2.2" if port in (53, 80) else "1.1.1.1"


def packets(number, *rows, recording="a"):
    """Rows: ts in s, flow, proto, source port, destination port, flags."""
    made = [
        (at, i + 1, flow, None, proto, None, address(one), one, address(other), other, flags)
        for i, (at, flow, proto, one, other, flags) in enumerate(rows)
    ]
    frame = pl.DataFrame(made, schema={"ts": pl.Int64, **PACKET}, orient="row")
    ts = pl.from_epoch(pl.col("ts") * SECOND, time_unit="ns").dt.replace_time_zone("UTC")
    return Made(number, {"packet": frame.with_columns(ts)}, recording)


def numbers(*segments):
    found = Row(segments).rows("packet").collect()
    return found["frame"].to_list(), found["flow_id"].to_list()


def test_a_connection_goes_on_in_the_next_segments():
    first = packets(1, (0, 0, 6, 1000, 80, SYN), (1, 1, 6, 1001, 80, ACK))
    second = packets(2, (2, 0, 6, 80, 1001, ACK), (3, 1, 6, 1002, 80, SYN))
    third = packets(3, (4, 0, 6, 80, 1000, ACK), (5, 1, 6, 80, 1001, ACK))
    frames, flows = numbers(first, second, third)
    assert frames == [1, 2, 3, 4, 5, 6]
    assert flows == [0, 1, 1, 3, 0, 1]


def test_ports_that_are_used_again_begin_another_connection():
    first = packets(1, (0, 0, 6, 1000, 80, ACK))
    # The tail of the old connection, then a new one on its ports.
    second = packets(2, (1, 0, 6, 1000, 80, ACK), (2, 1, 6, 1000, 80, SYN))
    third = packets(3, (3, 0, 6, 80, 1000, SYN_ACK))
    fourth = packets(4, (4, 0, 6, 1000, 80, SYN))
    assert numbers(first, second, third, fourth)[1] == [0, 0, 2, 2, 4]


@pytest.mark.parametrize(("pause", "same"), [(119, True), (121, False)])
def test_datagrams_go_on_unless_they_pause(pause, same):
    found = numbers(packets(1, (0, 0, 17, 53, 999, None)), packets(2, (pause, 0, 17, 999, 53, None)))[1]
    assert found == ([0, 0] if same else [0, 1])


def test_what_has_no_ports_keeps_its_own_numbers():
    first = packets(1, (0, 0, 1, None, None, None), (0, None, None, None, None, None))
    assert numbers(first, packets(2, (1, 0, 1, None, None, None)))[1] == [0, None, 1]


def test_surroundings_stand_once():
    def processes(number, *rows):
        return Made(number, {"process": pl.DataFrame(rows, schema=["event", "pid"], orient="row")})

    first = processes(1, ("snapshot", 1), ("exec", 2))
    second = processes(2, ("snapshot", 1), ("snapshot", 2), ("exit", 2), (None, 3))
    assert Row([first, second]).rows("process").collect().rows() == [
        ("snapshot", 1),
        ("exec", 2),
        ("exit", 2),
        (None, 3),
    ]


def test_only_segments_without_a_gap_are_one():
    made = [packets(n) for n in (4, 1, 2)] + [packets(3, recording="b")]
    found = as_rows(made)
    assert [type(each) for each in found] == [Row, Made, Made]
    assert found[1].number == 4
    assert as_rows(made[:1] + made[3:]) == made[:1] + made[3:]
