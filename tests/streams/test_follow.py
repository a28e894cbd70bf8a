"""Following a conversation: order, overlaps, holes, in the words of `tshark -z follow,tcp`."""

from __future__ import annotations

import random

import polars as pl
import pytest
from helpers.traffic import ACK, CLIENT, LOCAL_CLIENT, LOCAL_SERVER, SERVER, Connection, Packets

from stratokit.errors import UsageError
from stratokit.render.follow import lines
from stratokit.schema import load
from stratokit.streams.follow import WAITING_MAX, follow


def told(packets: Packets, form: str = "raw") -> list[str]:
    return list(lines(follow(packets, 0), form))[6:-1]


def test_both_directions_in_the_order_of_reading() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"GET")
    connection.answer(b"\x00\xff")
    connection.ask(b"bye")
    assert told(packets) == ["474554", "\t00ff", "627965"]
    assert list(lines(follow(packets, 0), "raw"))[:6] == [
        "",
        "=" * 67,
        "Follow: tcp,raw",
        "Filter: tcp.stream eq 0",
        "Node 0: 10.0.0.1:40000",
        "Node 1: 10.0.0.2:8080",
    ]


def test_text_and_hexadecimal_form() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"one\r\n\ttwo")
    connection.answer(b"0123456789abcdefgh")
    assert told(packets, "text") == ["9", "one\r\n.two", "\t18", "0123456789abcdefgh"]
    assert told(packets, "hex") == [
        "00000000  6f 6e 65 0d 0a 09 74 77  6f                       one...tw o",
        "\t00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  01234567 89abcdef",
        "\t00000010  67 68                                             gh",
    ]


def test_a_hole_is_told_when_its_receiver_acknowledges_beyond_it() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.answer(b"ab")
    connection.lose(SERVER, 10)
    connection.answer(b"cd")
    assert told(packets) == ["\t6162"]
    connection.send(CLIENT, b"", ACK)
    note = b"[10 bytes missing in capture file]\0".hex()
    assert told(packets) == ["\t6162", "\t" + note, "\t6364"]
    frame = follow(packets, 0).frame()
    assert frame["missing_bytes"].to_list() == [0, 10, 0]
    assert frame["data"].to_list() == [b"ab", b"", b"cd"]


@pytest.mark.parametrize("seed", range(20))
def test_any_cutting_reordering_and_duplication_reads_as_the_stream(seed: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(900)
    cuts = sorted(rng.sample(range(1, 900), 12))
    parts = [(a, data[a:b]) for a, b in zip([0, *cuts], [*cuts, 900], strict=True)]
    parts += rng.sample(parts, 5)
    parts += [(at, data[at : at + 100]) for at in rng.sample(range(800), 3)]
    rng.shuffle(parts)
    packets = Packets()
    connection = Connection(packets)
    start = connection.next[CLIENT]
    for at, part in parts:
        packets.segment(CLIENT, SERVER, start + at, part)
    assert follow(packets, 0).bytes(from_client=True) == data


def test_a_local_conversation_is_followed_in_one_view() -> None:
    packets = Packets()
    connection = Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    connection.ask(b"q")
    connection.answer(b"a")
    assert told(packets) == ["71", "\t61"]


class Repeated(Packets):
    """The last packet again and again, each a byte later."""

    def rows(self, kind: str) -> pl.LazyFrame:
        rows = super().rows(kind).collect()
        count = WAITING_MAX + 3
        again = pl.concat([rows[-1:]] * count).with_columns(
            frame=pl.int_range(count, dtype=pl.UInt64) + 10, tcp_seq=pl.int_range(count, dtype=pl.UInt32) + 9
        )
        return pl.concat([rows[:-1], again]).lazy()


def test_what_waits_for_a_hole_is_bounded_and_the_rest_is_counted() -> None:
    packets = Repeated()
    packets.segment(CLIENT, SERVER, 1, b"first")
    packets.segment(CLIENT, SERVER, 9, b"x")
    stream = follow(packets, 0)
    assert stream.losses == {"follow_dropped_bytes": 3}
    assert stream.losses.keys() <= load.counters().keys()


def test_an_unknown_conversation_is_told() -> None:
    packets = Packets()
    Connection(packets)
    with pytest.raises(UsageError, match="no TCP conversation 7"):
        follow(packets, 7)
