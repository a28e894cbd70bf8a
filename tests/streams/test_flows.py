"""Conversations: the rules of flows.py, one by one, and all together against a plain model."""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.streams.flows import ACK, FIN, ICMP_IDLE_NS, PLACES_MAX, RST, SYN, UDP_IDLE_NS, FlowTable

A, B = "10.0.0.1", "10.0.0.2"
TCP, UDP, ICMP, ICMPV6, GRE = 6, 17, 1, 58, 47


def packet(src: str, sport: int, dst: str, dport: int, proto: int = TCP, **rest: int) -> dict[str, Any]:
    return {"src": src, "sport": sport, "dst": dst, "dport": dport, "proto": proto} | rest


def assign(table: FlowTable, packets: list[dict[str, Any]]) -> list[tuple[int, bool]]:
    def column(name: str, default: int = 0) -> list[int]:
        return [p.get(name, default) for p in packets]

    def addresses(name: str) -> np.ndarray:
        packed = [ipaddress.ip_address(p[name]).packed.rjust(16, b"\0") for p in packets]
        return np.frombuffer(b"".join(packed), np.uint8).reshape(-1, 16)

    flow_id, from_client = table.assign(
        addresses("src"),
        addresses("dst"),
        column("sport"),
        column("dport"),
        column("proto"),
        column("vlan"),
        column("flags", ACK),
        column("seq"),
        column("ts"),
        column("has_ports", 1),
        tcp_ack=column("ack"),
        icmp_type=column("icmp_type"),
        valid=column("valid", 1),
        tunnel=column("tunnel"),
    )
    return list(zip(flow_id.tolist(), from_client.tolist(), strict=True))


def flows(*packets: dict[str, Any]) -> list[int]:
    return [flow for flow, _ in assign(FlowTable(), list(packets))]


def clients(*packets: dict[str, Any]) -> list[bool]:
    return [from_client for _, from_client in assign(FlowTable(), list(packets))]


def test_both_directions_are_one_conversation_numbered_in_order_of_appearance() -> None:
    other = packet(A, 1000, B, 81)
    assert flows(packet(A, 1000, B, 80), other, packet(B, 80, A, 1000), other) == [0, 1, 0, 1]


def test_protocols_and_vlans_keep_conversations_apart() -> None:
    here = packet(A, 53, B, 53, UDP)
    assert flows(here, here | {"proto": TCP}, here | {"vlan": 7}, here) == [0, 1, 2, 0]


def test_a_mirror_port_may_show_each_direction_in_its_own_vlan() -> None:
    there, back = packet(A, 1000, B, 80, vlan=10), packet(B, 80, A, 1000, vlan=20)
    assert flows(there, back, there, back) == [0, 0, 0, 0]
    copied = there | {"vlan": 30}
    assert flows(there, copied, back, back | {"vlan": 40}) == [0, 1, 0, 1]


def test_tunnels_keep_conversations_apart_each_direction_having_its_own() -> None:
    there, back = packet(A, 1000, B, 80), packet(B, 80, A, 1000)
    inside, other = {"tunnel": 7 << 24 | 42}, {"tunnel": 7 << 24 | 43}
    assert flows(there, there | inside, there | other, back | inside) == [0, 1, 2, 0]
    assert flows(there | inside, back, there | inside) == [0, 0, 0]
    assert flows(there | {"vlan": 5}, there | {"vlan": 5} | inside) == [0, 1]


def test_of_too_many_places_packets_go_to_the_first() -> None:
    there = packet(A, 1000, B, 80)
    many = [there | {"tunnel": k} for k in range(1, PLACES_MAX + 4)]
    assert flows(*many) == [*range(PLACES_MAX), 0, 0, 0]


def test_a_syn_with_another_number_begins_a_new_connection() -> None:
    syn = packet(A, 1000, B, 80, flags=SYN, seq=5)
    answer = packet(B, 80, A, 1000, flags=SYN | ACK, seq=77, ack=6)
    data = packet(A, 1000, B, 80, seq=6, ack=78)
    again = syn | {"seq": 9000}
    assert flows(syn, syn, answer, data, again, answer | {"seq": 5000, "ack": 9001}, again) == [
        0,
        0,
        0,
        0,
        1,
        1,
        1,
    ]


def test_the_number_of_a_side_not_heard_yet_is_known_from_the_other_sides_ack() -> None:
    answer = packet(B, 80, A, 1000, seq=500, ack=6)
    assert flows(answer, packet(A, 1000, B, 80, flags=SYN, seq=5)) == [0, 0]
    assert flows(answer, packet(A, 1000, B, 80, flags=SYN, seq=6)) == [0, 1]


def test_connections_begun_before_the_capture_end_with_the_next_syn() -> None:
    data = packet(A, 1000, B, 80, seq=1_000_000, ack=1)
    assert flows(data, data | {"flags": FIN | ACK}, data | {"flags": SYN, "seq": 3}) == [0, 0, 1]


@pytest.mark.parametrize(
    ("proto", "idle"), [(UDP, UDP_IDLE_NS), (132, UDP_IDLE_NS), (GRE, UDP_IDLE_NS), (ICMP, ICMP_IDLE_NS)]
)
def test_a_long_pause_begins_a_new_conversation(proto: int, idle: int) -> None:
    here = packet(A, 1, B, 2, proto, icmp_type=8)
    assert flows(here, here | {"ts": idle}, here | {"ts": 2 * idle + 1}, here | {"ts": 5}) == [0, 0, 1, 1]
    assert flows(packet(A, 1, B, 2), packet(A, 1, B, 2, ts=10 * UDP_IDLE_NS)) == [0, 0]


def test_icmp_request_and_reply_belong_together_and_kinds_do_not() -> None:
    ping = packet(A, 0, B, 0, ICMP, icmp_type=8)
    pong = packet(B, 0, A, 0, ICMP, icmp_type=0)
    assert flows(ping, pong, packet(B, 0, A, 0, ICMP, icmp_type=3), pong) == [0, 0, 1, 0]
    assert clients(ping, pong) == [True, False]
    assert clients(pong, ping) == [False, True]
    echo6 = packet("fd00::1", 0, "fd00::2", 0, ICMPV6, icmp_type=129)
    assert clients(echo6, packet("fd00::2", 0, "fd00::1", 0, ICMPV6, icmp_type=128)) == [False, True]


def test_what_has_no_ports_or_no_address_belongs_to_no_conversation() -> None:
    later_fragment = packet(A, 0, B, 0, UDP, has_ports=0)
    assert flows(later_fragment, packet(A, 0, B, 0, 0, valid=0), packet(A, 0, B, 0, GRE, has_ports=0)) == [
        -1,
        -1,
        0,
    ]


@pytest.mark.parametrize(
    ("first", "sender_is_client"),
    [
        (packet(A, 80, B, 1000, flags=SYN), True),
        (packet(A, 1000, B, 80, flags=SYN | ACK), False),
        (packet(A, 1000, B, 80), True),
        (packet(A, 443, B, 40000), False),
        (packet(A, 40000, B, 8080), True),
        (packet(A, 8080, B, 40000), False),
        (packet(A, 53, B, 40000, UDP), False),
        (packet(A, 8080, B, 40000, UDP), True),
        (packet(A, 123, B, 123, UDP), True),
    ],
)
def test_who_is_the_client(first: dict[str, Any], sender_is_client: bool) -> None:
    back = packet(first["dst"], first["dport"], first["src"], first["sport"], first["proto"])
    assert clients(first, back) == [sender_is_client, not sender_is_client]


class Model:
    """The same rules with a dictionary and no VLANs."""

    def __init__(self) -> None:
        self.known: dict[Any, dict[str, Any]] = {}
        self.count = 0

    def assign(self, p: dict[str, Any]) -> int:
        ends = [(p["src"], p["sport"]), (p["dst"], p["dport"])]
        found = self.known.get(key := (p["proto"], *sorted(ends)))
        syn = p["proto"] == TCP and p["flags"] & (SYN | ACK) == SYN
        if p["proto"] == TCP:
            new = found is None or (syn and found["base"].get(ends[0], p["seq"]) != p["seq"])
        else:
            new = found is None or p["ts"] - found["last"] > UDP_IDLE_NS
        if new:
            found = self.known[key] = {"flow": self.count, "base": {}, "last": p["ts"]}
            self.count += 1
        assert found is not None
        found["last"] = max(found["last"], p["ts"])
        found["base"].setdefault(ends[0], p["seq"] if p["flags"] & SYN else (p["seq"] - 1) % 2**32)
        if p["flags"] & ACK:
            found["base"].setdefault(ends[1], (p["ack"] - 1) % 2**32)
        return int(found["flow"])


PACKETS = st.lists(
    st.builds(
        lambda ends, ports, proto, flags, seq, ack, ts: packet(
            *[x for pair in zip(ends, ports, strict=True) for x in pair],
            proto,
            flags=flags,
            seq=seq,
            ack=ack,
            ts=ts,
        ),
        st.permutations([A, B]),
        st.permutations([1000, 80]),
        st.sampled_from([TCP, UDP]),
        st.sampled_from([SYN, SYN | ACK, ACK, FIN | ACK, RST]),
        st.sampled_from([0, 1, 2, 2**32 - 1]),
        st.sampled_from([0, 1, 2]),
        st.integers(0, 3 * UDP_IDLE_NS),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(PACKETS, st.lists(st.integers(0, 40), max_size=5))
def test_agrees_with_the_model_however_the_packets_are_cut_into_batches(
    packets: list[dict[str, Any]], cuts: list[int]
) -> None:
    model = Model()
    expected = [model.assign(p) for p in packets]
    table = FlowTable(capacity=2)
    places = [0, *sorted(c for c in cuts if c < len(packets)), len(packets)]
    found = []
    for a, b in itertools.pairwise(places):
        if a < b:
            found += [flow for flow, _ in assign(table, packets[a:b])]
    assert found == expected
    assert len(table) == model.count


def test_the_table_grows_with_the_number_of_conversations() -> None:
    n = 50_000
    src = np.zeros((n, 16), np.uint8)
    src[:, :4] = np.arange(n, dtype=np.uint32).view(np.uint8).reshape(n, 4)
    table = FlowTable()
    arguments = (np.ones((n, 16), np.uint8), np.full(n, 9), np.full(n, 80), np.full(n, TCP), np.zeros(n))
    first, _ = table.assign(src, *arguments, np.full(n, ACK), np.zeros(n), np.zeros(n))
    second, _ = table.assign(src[::-1], *arguments, np.full(n, ACK), np.zeros(n), np.zeros(n))
    assert (first == np.arange(n)).all()
    assert (second == first[::-1]).all()
    assert len(table) == n


def test_no_packets_give_no_flows() -> None:
    assert assign(FlowTable(), [packet(A, 1, B, 2)])[:0] == []
    nothing = np.zeros((0, 16), np.uint8)
    flow_id, from_client = FlowTable().assign(nothing, nothing, [], [], [], [], [], [], [])
    assert flow_id.size == from_client.size == 0
