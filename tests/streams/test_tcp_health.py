"""How connections went: hand-made segments with what must be said of them."""

from __future__ import annotations

import pytest
from helpers.traffic import (
    ACK,
    CLIENT,
    FIN,
    LOCAL_CLIENT,
    LOCAL_SERVER,
    MS,
    RST,
    SERVER,
    SYN,
    Connection,
    Packets,
)

from stratokit.streams import segment_table, tcp


def row(packets: Packets) -> dict[str, object]:
    (found,) = tcp.build(packets).collect().to_dicts()
    return found


def closed(packets: Packets) -> Connection:
    connection = Connection(packets)
    connection.ask(b"question")
    connection.answer(b"the answer")
    connection.send(CLIENT, b"", ACK)
    connection.close()
    connection.send(CLIENT, b"", ACK)
    return connection


def test_a_connection_without_trouble() -> None:
    packets = Packets()
    closed(packets)
    found = row(packets)
    assert (found["conn_state"], found["history"], found["completeness"]) == ("SF", "ShADdFf", 31)
    assert (found["closed_by"], found["closed_how"]) == ("client", "fin")
    assert (found["payload_c2s"], found["payload_s2c"], found["bytes_missing"]) == (8, 10, 0)
    assert (
        found["retransmissions"] == found["out_of_order"] == found["lost_segments"] == found["dup_acks"] == 0
    )
    assert found["first_byte_c2s_ns"] == 3 * MS
    assert found["kernel_retransmits"] is None


def test_what_was_not_captured_is_missing_until_it_comes_late() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.lose(CLIENT, 100)
    connection.ask(b"x" * 50)
    assert (row(packets)["lost_segments"], row(packets)["bytes_missing"]) == (1, 100)
    start = connection.next[CLIENT] - 150
    packets.segment(CLIENT, SERVER, start + 20, b"y" * 30)
    assert row(packets)["bytes_missing"] == 70
    packets.segment(CLIENT, SERVER, start, b"y" * 100)
    assert row(packets)["bytes_missing"] == 0


def test_a_syn_again_lets_forget_what_came_behind_a_hole() -> None:
    packets = Packets()
    connection = Connection(packets)
    first = connection.next[CLIENT]
    connection.lose(CLIENT, 20)
    connection.ask(b"x" * 10)
    packets.segment(CLIENT, SERVER, first - 1, b"", SYN)
    connection.ask(b"x" * 10)  # as Wireshark 4.0 says: once more after a hole
    assert row(packets)["lost_segments"] == 2


def test_after_a_refused_syn_the_one_that_is_accepted_begins_anew() -> None:
    """A closed port answers with an RST whose number is 0; the SYN comes again, and now somebody listens."""
    packets = Packets()
    connection = Connection(packets, handshake=False)
    connection.send(CLIENT, b"", SYN)
    packets.segment(SERVER, CLIENT, 0, b"", RST | ACK, tcp_ack=connection.next[CLIENT])
    connection.next[CLIENT] -= 1
    packets.now += 500 * MS
    connection.send(CLIENT, b"", SYN)
    connection.next[SERVER] = 2**31 + 5  # behind 0, as numbers that wrap are compared
    connection.send(SERVER, b"", SYN | ACK)
    connection.send(CLIENT, b"", ACK)
    connection.answer(b"hello")
    found = row(packets)
    assert (found["retransmissions_c2s"], found["retransmissions_s2c"], found["out_of_order"]) == (1, 0, 0)


def test_acks_of_unseen_bytes_are_told_once_where_all_holes_were_filled() -> None:
    packets = Packets()
    connection = Connection(packets)
    start = connection.next[SERVER]
    connection.lose(SERVER, 10)
    connection.answer(b"y" * 10)
    packets.segment(SERVER, CLIENT, start, b"x" * 10, tcp_ack=connection.next[CLIENT])
    for _ in range(2):  # what they acknowledge comes behind everything that was seen
        connection.lose(SERVER, 1000)
        connection.ask(b"more")
    found = row(packets)
    assert (found["acked_unseen"], found["lost_segments"]) == (1, 1)


def test_what_comes_late_by_a_clock_that_went_back_is_a_retransmission() -> None:
    for step, expected in ((-50 * MS, (1, 0)), (0, (0, 1))):
        packets = Packets()
        connection = Connection(packets)
        start = connection.next[SERVER]
        connection.lose(SERVER, 100)
        connection.answer(b"x" * 50)
        packets.now += step
        packets.segment(SERVER, CLIENT, start, b"x" * 100)
        found = row(packets)
        assert (found["retransmissions"], found["out_of_order"]) == expected


def test_of_many_holes_the_oldest_stays_missing() -> None:
    packets = Packets()
    connection = Connection(packets)
    for _ in range(20):
        connection.lose(CLIENT, 10)
        connection.ask(b"x")
    assert row(packets)["bytes_missing"] == 200
    assert row(packets)["lost_segments_c2s"] == 20


def test_a_retransmission_at_both_ends_of_a_local_connection_counts_once() -> None:
    packets = Packets()
    connection = Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    connection.ask(b"question")
    packets.now += 300 * MS
    connection.next[LOCAL_CLIENT] -= 8
    connection.ask(b"question")
    found = row(packets)
    assert (found["retransmissions"], found["rto_retransmissions"], found["view"]) == (1, 1, "client")


def test_a_retransmission_that_was_lost_on_the_way_counts_for_its_sender() -> None:
    packets = Packets()
    connection = Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    connection.answer(b"answer")
    packets.added = [r for r in packets.added if (r["frame"], r["direction"]) != (4, "in")]
    packets.now += 300 * MS
    connection.next[LOCAL_SERVER] -= 6
    connection.answer(b"answer")
    assert row(packets)["retransmissions_s2c"] == 1


def test_time_with_a_closed_window() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"x" * 100)
    connection.send(SERVER, b"", ACK, tcp_window=0)
    packets.now += 50 * MS
    connection.send(SERVER, b"", ACK, tcp_window=1000)
    found = row(packets)
    assert (found["zero_windows_s2c"], found["zero_window_c2s_ns"]) == (1, 51 * MS)
    assert found["history"] == "ShADaw"


@pytest.mark.parametrize(
    ("flags", "state", "history", "by"),
    [
        ([(CLIENT, SYN)], "S0", "S", None),
        ([(CLIENT, SYN), (SERVER, RST | ACK)], "REJ", "Sr", "server"),
        ([(CLIENT, SYN), (SERVER, SYN | ACK), (CLIENT, ACK)], "S1", "ShA", None),
        ([(CLIENT, SYN), (SERVER, SYN | ACK), (CLIENT, ACK), (CLIENT, FIN | ACK)], "S2", "ShAF", "client"),
        ([(CLIENT, SYN), (SERVER, SYN | ACK), (CLIENT, ACK), (SERVER, FIN | ACK)], "S3", "ShAf", "server"),
        ([(CLIENT, SYN), (SERVER, SYN | ACK), (CLIENT, ACK), (CLIENT, RST)], "RSTO", "ShAR", "client"),
        ([(CLIENT, SYN), (SERVER, SYN | ACK), (CLIENT, ACK), (SERVER, RST)], "RSTR", "ShAr", "server"),
        ([(CLIENT, SYN), (CLIENT, RST)], "RSTOS0", "SR", "client"),
        ([(CLIENT, SYN), (CLIENT, FIN | ACK)], "SH", "SF", "client"),
        ([(SERVER, SYN | ACK), (SERVER, RST)], "RSTRH", "hr", "server"),
        ([(SERVER, SYN | ACK), (SERVER, FIN | ACK)], "SHR", "hf", "server"),
        ([(CLIENT, ACK)], "OTH", "A", None),
    ],
)
def test_states_of_zeek(flags: list[tuple[object, int]], state: str, history: str, by: str | None) -> None:
    packets = Packets()
    connection = Connection(packets, handshake=False)
    for end, flag in flags:
        connection.send(end, b"", flag)  # type: ignore[arg-type]
    found = row(packets)
    assert (found["conn_state"], found["history"], found["closed_by"]) == (state, history, by)


def test_what_the_kernel_measured_stands_beside() -> None:
    packets = Packets()
    connection = Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    connection.ask(b"x")
    for added in packets.added:
        client = (added["direction"] == "out") == (added["src_port"] == LOCAL_CLIENT.port)
        added["socket_cookie"] = 11 if client else 22
    for cookie, rtt, count in ((11, 500, 0), (11, 700, 2), (22, 900, 3)):
        packets.sockets.append(
            {"ts": packets.now, "socket_cookie": cookie, "rtt_ns": rtt, "retransmits": count}
        )
        packets.now += MS
    found = row(packets)
    assert (found["kernel_srtt_ns"], found["kernel_retransmits"]) == (700, 5)
    assert (found["kernel_retransmits_c2s"], found["kernel_retransmits_s2c"]) == (2, 3)


def test_each_segment_tells_what_was_found() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"question")
    connection.send(SERVER, b"", ACK)
    connection.send(SERVER, b"", ACK)
    connection.next[CLIENT] -= 8
    packets.now += 300 * MS
    connection.ask(b"question")
    rows = segment_table.build(packets).collect()
    assert rows["frame"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert rows["duplicate_ack"].to_list() == [None] * 5 + [True, None]
    assert rows["duplicate_ack_num"].to_list() == [None] * 5 + [1, None]
    assert rows["spurious_retransmission"].to_list() == [None] * 6 + [True]
    assert rows["ack_rtt_ns"].to_list() == [None, MS, MS, None, MS, None, None]
    assert rows["bytes_in_flight"].to_list() == [None] * 3 + [8, None, None, 8]
    assert rows["tcp_analysis"].to_list() == [0, 0, 0, 0, 0, 1 << 6, 1 | 1 << 2]
