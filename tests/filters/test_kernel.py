"""What of a filter the kernel decides: C as it stands in the program, and what is left for the conversion."""

# ruff: noqa: E501 the C that is expected stands in one line

import pytest

from stratokit.engine.recording_filter import explain, plan
from stratokit.filters import kernel
from stratokit.filters.errors import FilterError
from stratokit.filters.parse import parse


def packets(text, conversations=False):
    bound = kernel.packets(parse(text), conversations)
    return bound.test.replace("(", "").replace(")", ""), bound.exact


@pytest.mark.parametrize(
    ("text", "test", "exact"),
    [
        ("tcp", "p->proto == 6", True),
        ("tcp.port == 80", "p->proto == 6 && s64p->sport == 80LL || s64p->dport == 80LL", True),
        ("tcp.port != 80", "p->proto == 6 && s64p->sport != 80LL && s64p->dport != 80LL", True),
        ("any tcp.port != 80", "p->proto == 6 && s64p->sport != 80LL || s64p->dport != 80LL", True),
        ("udp.dstport in {53, 5300..5400}", "p->proto == 17 && s64p->dport == 53LL || s64p->dport >= 5300LL && s64p->dport <= 5400LL", True),
        ("ip.src == 10.1.0.0/16", "p->version == 4 && p->src[3] & 0xffff == 0x10a", True),
        ("ip.addr == 1.2.3.4", "p->version == 4 && p->src[3] & 0xffffffff == 0x4030201 || p->dst[3] & 0xffffffff == 0x4030201", True),
        ("ipv6.dst == fe80::/10", "p->version == 6 && p->dst[0] & 0xc0ff == 0x80fe", True),
        ("tcp.flags.syn == 1 && !(tcp.flags.ack == 1)", "p->proto == 6 && !!p->flags & 2 == 1 && !p->proto == 6 && !!p->flags & 16 == 1", True),
        ("tcp.flags == 0x12", "p->proto == 6 && s64p->flags == 18LL", True),
        ("packet.direction == \"in\"", "1 && p->direction == 1", True),
        # What cannot be known there lets everything pass, and its opposite too.
        ("ip.ttl < 5", "", False),
        ("!(ip.ttl < 5)", "", False),
        ("ip.ttl < 5 && tcp", "p->proto == 6", False),
        ("ip.ttl < 5 || tcp", "", False),
        ("tcp.port == tcp.srcport", "", False),
        ("ip.addr#2 == 1.2.3.4", "", False),
        ("tcp.port == 80 xor ip.ttl < 5", "", False),
        ("tcp.port + 1 == 81", "", False),
    ],
)  # fmt: skip
def test_packets(text, test, exact):
    assert packets(text) == (test, exact)


@pytest.mark.parametrize(
    ("text", "test"),
    [
        ("http", "p->http"),
        ("http.response.code >= 500 && tcp.port == 80", "p->http && p->proto == 6 && s64p->sport == 80LL || s64p->dport == 80LL"),
        ("dns.qry.name contains \"shop\" or http2", "p->dns || p->http"),
        # One direction's port, or a flag, says nothing of the other packets that the decoders need.
        ("http && tcp.dstport == 80", "p->http && p->proto == 6 && s64p->sport == 80LL || s64p->dport == 80LL"),
        ("http && tcp.flags.syn == 1", "p->http"),
        ("http && tcp.dstport != 80", "p->http"),
        ("!http", ""),
        ("!dns && !(ip.addr == 1.2.3.4)", "!p->version == 4 && p->src[3] & 0xffffffff == 0x4030201 || p->dst[3] & 0xffffffff == 0x4030201"),
        ("tls", ""),
    ],
)  # fmt: skip
def test_whole_conversations(text, test):
    assert packets(text, conversations=True)[0] == test


def calls(text):
    found, _ = kernel.calls(parse(text), ["close", "openat", "read"])
    return {name: bound.test.replace("(", "").replace(")", "") for name, bound in found.items()}


SLOW = "c->timed && c->duration_ns > 10000000ULL"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("evt.type == openat", {"openat": "1"}),
        ('evt.type in {"read", "close"} and evt.latency > 10ms', dict.fromkeys(("close", "read"), SLOW)),
        ('evt.type contains "o" and not evt.type == close', {"openat": ""}),
        ("evt.type == read or evt.latency > 0.01", {"close": SLOW, "openat": SLOW, "read": "1"}),
        (
            "evt.res == ENOENT and evt.type != read",
            dict.fromkeys(
                ("close", "openat"), "c->returned && c->ret < 0 && c->ret >= -4095 && c->ret == -2"
            ),
        ),
        ('fd.name contains "/etc" and evt.type == openat', {"openat": ""}),
        ("evt.type == fork", {}),
    ],
)
def test_calls(text, expected):
    assert calls(text) == expected


@pytest.mark.parametrize(
    ("text", "packet", "context", "whole", "of_calls"),
    [
        ("http", True, True, True, False),
        ("tcp.flags.syn == 1", True, False, False, False),
        ("tcp.analysis.retransmission", True, True, False, False),
        ("evt.type == openat", False, False, False, True),
        ('proc.name == "nginx"', True, False, False, True),
        ("dns or evt.failed == true", True, True, True, True),
        ("dns and evt.failed == true", False, False, False, False),
        ("flow.duration > 1s", True, True, True, False),
    ],
)
def test_plan(text, packet, context, whole, of_calls):
    found = plan(text)
    assert (found.packets is not None, found.syscalls is not None) == (packet, of_calls)
    if found.packets:
        assert (found.packets.context, found.packets.conversations) == (context, whole)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http.hots == 1", "there is no field http.hots; the nearest is http.host"),
        ("evt.typo == open", "there is no field evt.typo; the nearest is evt.type"),
        ("user.uid == 0", "user.uid is known only in the table processes"),
        ("tcp.port == many", "there is no field many"),
        ("tcp.port ==", "the filter ends here"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text, reason):
    with pytest.raises(FilterError, match=reason) as raised:
        plan(text)
    assert raised.value.at <= len(text)


def test_each_part_says_where_it_is_decided():
    rows = {
        (part, kind): where
        for part, kind, where in explain(plan("http && ip.addr == 10.0.0.0/8 && ip.ttl < 3"))
    }
    assert rows["ip.addr == 10.0.0.0/8", "packets"] == "in the kernel"
    assert rows["http", "packets"] == "in the kernel what cannot match, the rest when converting"
    assert rows["ip.ttl < 3", "packets"] == "when converting"
    assert rows["(nothing)", "syscalls"] == "not recorded"
