"""The tables `flows` and `tcp`: each packet once, each end's own process, times of one view."""

from __future__ import annotations

import polars as pl
import pytest
from helpers.traffic import (
    ACK,
    CLIENT,
    LOCAL_CLIENT,
    LOCAL_SERVER,
    MS,
    RST,
    SERVER,
    SYN,
    T0,
    Connection,
    End,
    Packets,
)

from stratokit.streams import conversations, tcp
from stratokit.streams.community_id import community_ids


def rows(packets: Packets) -> list[dict[str, object]]:
    return conversations.build(packets).collect().to_dicts()


def test_a_conversation_in_a_plain_capture() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"12345")
    connection.answer(b"123")
    (row,) = rows(packets)
    assert (row["client_ip"], row["client_port"]) == ("10.0.0.1", 40000)
    assert (row["server_ip"], row["server_port"], row["proto"]) == ("10.0.0.2", 8080, "tcp")
    assert (row["packets_c2s"], row["packets_s2c"]) == (3, 2)
    assert (row["bytes_c2s"], row["bytes_s2c"]) == (3 * 40 + 5, 2 * 40 + 3)
    assert row["duration_ns"] == 4 * MS
    assert row["pid"] is row["server_pid"] is None


def test_a_packet_seen_at_both_ends_counts_once_and_each_end_has_its_process() -> None:
    packets = Packets()
    Connection(packets, LOCAL_CLIENT, LOCAL_SERVER).ask(b"12345")
    (row,) = rows(packets)
    assert (row["packets_c2s"], row["packets_s2c"]) == (3, 1)
    assert (row["pid"], row["comm"], row["pod"]) == (10, "curl", "shop-1")
    assert (row["server_pid"], row["server_comm"], row["server_pod"]) == (20, "nginx", "web-1")


def test_a_packet_seen_at_one_end_only_counts_too() -> None:
    packets = Packets()
    Connection(packets, LOCAL_CLIENT, LOCAL_SERVER).ask(b"12345")
    packets.added = [r for r in packets.added if (r["frame"], r["direction"]) != (4, "out")]
    (row,) = rows(packets)
    assert (row["packets_c2s"], row["packets_s2c"]) == (3, 1)


def test_the_server_is_who_accepted_last() -> None:
    packets = Packets()
    connection = Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    for row in packets.added:
        if row["pid"] == 20:
            row.update(pid=19, comm="listener")
    connection.answer(b"x")
    (row,) = rows(packets)
    assert (row["server_pid"], row["server_comm"]) == (20, "nginx")


def test_the_client_is_known_from_a_later_syn_ack() -> None:
    packets = Packets()
    packets.segment(SERVER, CLIENT, 5, b"", ACK)
    packets.segment(End("10.0.0.2", 8080), CLIENT, 5, b"", SYN | ACK)
    assert rows(packets)[0]["client_ip"] == "10.0.0.1"


def test_only_selected_columns_are_computed_and_all_are_declared() -> None:
    packets = Packets()
    Connection(packets)
    names = [column.name for column in conversations.TABLE.columns]
    assert conversations.build(packets).collect().columns == names
    plan = conversations.build(packets).select("flow_id").explain()
    assert "community" not in plan


def test_no_packets_no_conversations() -> None:
    packets = Packets()
    assert rows(packets) == []
    assert tcp.build(packets).collect().height == 0


# From the specification's baseline: https://github.com/corelight/community-id-spec/tree/master/baseline
@pytest.mark.parametrize(
    ("src", "dst", "proto", "sport", "dport", "expected"),
    [
        ("128.232.110.120", "66.35.250.204", 6, 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("66.35.250.204", "128.232.110.120", 6, 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("192.168.1.52", "8.8.8.8", 17, 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        ("192.168.170.8", "192.168.170.56", 132, 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
        ("10.1.12.2", "10.1.12.1", 46, None, None, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="),
        ("10.0.0.1", "10.0.0.2", 1, 11, 0, "1:YHxtAirCG//0OzkcVAukqKQN9xM="),
        (
            "3ffe:501:1800:2345::2",
            "3ffe:507:0:1:200:86ff:fe05:80da",
            58,
            3,
            0,
            "1:2ObVBgIn28oZvibYZhZMBgh7WdQ=",
        ),
        ("192.168.0.89", "192.168.0.1", 1, 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
        ("192.168.0.1", "192.168.0.89", 1, 0, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
        (
            "fe80::200:86ff:fe05:80da",
            "fe80::260:97ff:fe07:69ea",
            58,
            135,
            0,
            "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=",
        ),
    ],
)
def test_community_ids_of_the_specification(
    src: str, dst: str, proto: int, sport: int | None, dport: int | None, expected: str
) -> None:
    kind, code = (sport, dport) if proto in (1, 58) else (None, None)
    frame = pl.DataFrame(
        {
            "src_ip": [src, None],
            "dst_ip": [dst, None],
            "src_port": [sport, None],
            "dst_port": [dport, None],
            "ip_proto": [proto, None],
            "icmp_type": [kind, None],
            "icmp_code": [code, None],
        }
    )
    assert community_ids(frame).to_list() == [expected, None]


def handshake(packets: Packets) -> dict[str, object]:
    (row,) = tcp.build(packets).collect().to_dicts()
    return row


def test_handshake_times_of_a_plain_capture() -> None:
    packets = Packets()
    connection = Connection(packets, handshake=False)
    connection.send(CLIENT, b"", SYN)
    packets.now += 20 * MS
    connection.send(SERVER, b"", SYN | ACK)
    packets.now += 2 * MS
    connection.ask(b"the ACK may carry data")
    row = handshake(packets)
    assert (row["syn_rtt_ns"], row["ack_rtt_ns"], row["handshake_rtt_ns"]) == (21 * MS, 3 * MS, 24 * MS)
    assert row["syns"] == 1
    assert row["view"] == "wire"


def test_times_are_the_clients_where_it_was_recorded() -> None:
    packets = Packets(carry_ns=300_000)
    Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    row = handshake(packets)
    assert row["view"] == "client"
    # SYN out at 0, SYN-ACK in at 1.3 ms, ACK out at 2 ms
    assert (row["syn_rtt_ns"], row["ack_rtt_ns"]) == (1_300_000, 700_000)
    packets.added = [r for r in packets.added if r["pid"] == 20]
    row = handshake(packets)
    assert row["view"] == "server"
    assert (row["syn_rtt_ns"], row["ack_rtt_ns"]) == (700_000, 1_300_000)


def test_a_syn_sent_again_does_not_lengthen_the_round_trip() -> None:
    packets = Packets()
    connection = Connection(packets, handshake=False)
    connection.send(CLIENT, b"", SYN)
    packets.now += 1000 * MS
    connection.next[CLIENT] -= 1
    connection.send(CLIENT, b"", SYN)
    connection.send(SERVER, b"", SYN | ACK)
    connection.send(CLIENT, b"", ACK)
    row = handshake(packets)
    assert (row["syns"], row["handshake_rtt_ns"]) == (2, 2 * MS)
    syn_ts = tcp.build(packets).select(pl.col("syn_ts").to_physical()).collect().item()
    assert syn_ts == T0


def test_refused_and_unfinished_handshakes_have_no_round_trip() -> None:
    packets = Packets()
    connection = Connection(packets, handshake=False)
    connection.send(CLIENT, b"", SYN)
    connection.send(SERVER, b"", RST | ACK)
    row = handshake(packets)
    assert (row["handshake_rtt_ns"], row["syn_rtt_ns"], row["resets"]) == (None, None, 1)


def test_a_reset_seen_at_both_ends_counts_once() -> None:
    packets = Packets()
    Connection(packets, LOCAL_CLIENT, LOCAL_SERVER).send(LOCAL_SERVER, b"", RST)
    assert handshake(packets)["resets"] == 1
