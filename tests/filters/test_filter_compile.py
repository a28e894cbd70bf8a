"""What a filter selects, over a frame small enough to check by eye."""

from __future__ import annotations

import polars as pl
import pytest

from stratokit.filters.catalogue import FieldSpec
from stratokit.filters.compile import compile_filter
from stratokit.filters.errors import FilterError

ROWS = pl.DataFrame(
    {
        "src": ["10.0.0.1", "10.0.0.2", "::1", None],
        "dst": ["10.0.0.2", "10.1.0.2", "fe80::1", None],
        "port": [80, 443, 53, None],
        "took": [10_000_000, 2_000_000_000, None, 5],
        "host": ["Foo.example", "bar", None, "x"],
        "answers": [["1.1.1.1", "2.2.2.2"], [], None, ["a.example", "9.9.9.9"]],
        "data": [b"GET", b"\x00", None, b""],
        "syn": [True, False, None, None],
        "ts": pl.Series([0, 1_767_225_600_000_000_000, None, None]).cast(pl.Datetime("ns", "UTC")),
    }
)
_c = pl.col
SPECS = (
    FieldSpec("ip.addr", "ipv4", (_c("src"), _c("dst")), "Addresses."),
    FieldSpec("ipv6.addr", "ipv6", (_c("src"), _c("dst")), "Addresses."),
    FieldSpec("fd.ip", "address", (_c("src"), _c("dst")), "Addresses of both families."),
    FieldSpec("tcp.port", "number", (_c("port"),), "Port."),
    FieldSpec("http.time", "duration", (_c("took"),), "Duration."),
    FieldSpec("http.host", "text", (_c("host"),), "Text."),
    FieldSpec("dns.a", "ipv4", (_c("answers"),), "List.", many=True),
    FieldSpec("frame", "bytes", (_c("data"),), "Bytes."),
    FieldSpec("frame.time", "time", (_c("ts"),), "Time."),
    FieldSpec("tcp.flags.syn", "bool", (_c("syn"),), "Flag."),
    FieldSpec("dns", "protocol", (_c("answers").is_not_null(),), "Protocol."),
)
CATALOGUE = {spec.name: spec for spec in SPECS}


def selected(text: str) -> list[int]:
    return ROWS.with_row_index().filter(compile_filter(text, CATALOGUE))["index"].to_list()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        # presence
        ("dns", [0, 1, 3]),
        ("!dns", [2]),
        ("tcp.flags.syn", [0, 1]),
        ("ip.addr", [0, 1]),
        ("ipv6.addr", [2]),
        ("fd.ip", [0, 1, 2]),
        ("dns.a", [0, 3]),
        # several values: any for ==, all for !=
        ("ip.addr == 10.0.0.2", [0, 1]),
        ("ip.addr != 10.0.0.2", []),
        ("ip.addr != 10.0.0.9", [0, 1]),
        ("ip.addr !== 10.0.0.2", [0, 1]),
        ("!(ip.addr == 10.0.0.2)", [2, 3]),
        ("ip.addr === 10.0.0.2", []),
        ("all ip.addr == 10.0.0.0/24", [0]),
        ("any ip.addr != 10.0.0.2", [0, 1]),
        ("fd.ip != 10.0.0.2", [2]),
        # networks, ranges, order of addresses
        ("ip.addr == 10.1.0.0/16", [1]),
        ("fd.ip in {10.1.0.0/16, ::1}", [1, 2]),
        ("ip.addr in {10.0.0.2..10.0.0.9}", [0, 1]),
        ("ip.addr > 10.0.0.2", [1]),
        ("ipv6.addr == fe80::/10", [2]),
        ('fd.ip == "10.0.0.1"', [0]),
        # numbers
        ("tcp.port == 0x50", [0]),
        ("tcp.port in {80, 400..500}", [0, 1]),
        ("tcp.port not in {80}", [1, 2, 3]),
        ("80 <= tcp.port", [0, 1]),
        ("tcp.port > 79.5", [0, 1]),
        # durations: a bare number is seconds
        ("http.time > 5ms", [0, 1]),
        ("http.time >= 2", [1]),
        ("http.time == 0.01", [0]),
        ("http.time in {5ns..10ms}", [0, 3]),
        # texts
        ('http.host == "bar"', [1]),
        ('http.host contains "a"', [0, 1]),
        ('http.host matches "^foo\\\\."', [0]),
        ('http.host ~ r"^FOO\\."', [0]),
        ('http.host > "a"', [1, 3]),
        ('lower(http.host) == "foo.example"', [0]),
        ('upper(http.host) contains "EX"', [0]),
        ("len(http.host) > 3", [0]),
        ('string(tcp.port) contains "4"', [1]),
        # lists
        ("dns.a == 1.1.1.1", [0]),
        ("dns.a != 1.1.1.1", [3]),
        ("dns.a !== 9.9.9.9", [0]),
        ("dns.a == 9.0.0.0/8", [3]),
        ("count(dns.a) == 2", [0]),
        ("count(ip.addr) == 2", [0, 1]),
        ("count(fd.ip) == 2", [0, 1, 2]),
        # bytes, flags, times
        ('frame contains "GE"', [0]),
        ("len(frame) == 0", [3]),
        ("tcp.flags.syn == 1", [0]),
        ("tcp.flags.syn == False", [1]),
        ('frame.time >= "2026-01-01"', [1]),
        ("frame.time == 0", [0]),
        # unquoted, other kinds of values
        ("http.host == bar", [1]),
        ("http.host in {bar, x}", [1, 3]),
        ("http.host == 'x'", [3]),
        ("tcp.port == 'P'", [0]),
        ("frame contains 45:54", [0]),
        ("frame contains 'E'", [0]),
        ("frame == 474554", [0]),
        ("frame == 0", [1]),
        ('frame matches "^g.t$"', [0]),
        ('frame matches "\\x00"', [1]),
        ('frame.time >= "Jan 1, 2026 00:00:00"', [1]),
        ("frame.time >= 2026-01-01T00:00:00Z", [1]),
        ("frame.time in {0..1}", [0]),
        ("tcp.flags.syn == set", [0]),
        ('tcp.flags.syn == "Not set"', [1]),
        ("tcp.flags.syn > 0", [0]),
        # slices
        ("frame[0] == 47", [0]),
        ("frame[1:2] == 45:54", [0]),
        ("frame[1-2] == 45:54", [0]),
        ("frame[-1] == 'T'", [0]),
        ("frame[-2:] == 45:54", [0]),
        ("frame[0--2] == 47:45", [0]),
        ("frame[2,0] == 54:47", [0]),
        ("frame[0]", [0, 1]),
        ("frame[3:]", []),
        ("frame[0:4]", []),
        ("!frame[0]", [2, 3]),
        ('http.host[0:3] == "bar"', [1]),
        ('lower(http.host)[0] == "f"', [0]),
        ("ip.addr[0:2] == 0a:01", [1]),
        ("ipv6.addr[0] == fe", [2]),
        ("len(ip.addr) == 4", [0, 1]),
        ('dns.a[0] == "2"', []),
        # arithmetic
        ("tcp.port + 1 == 81", [0]),
        ("1 + tcp.port == 81", [0]),
        ("tcp.port - 100 < 0", [0, 2]),
        ("100 - tcp.port < 0", [1]),
        ("-tcp.port < -100", [1]),
        ("tcp.port % 10 == 3", [1, 2]),
        ("tcp.port / 2 == 26", [2]),
        ("tcp.port * 2 == 160", [0]),
        ("tcp.port / 0 == 1", []),
        ("tcp.port & 1", [1, 2]),
        ("tcp.port & 0xf == 11", [1]),
        ("frame[0] & 0f == 07", [0]),
        ("frame[0:2] & ff:00 == 47:00", [0]),
        ("tcp.port + tcp.port == 160", [0]),
        ("{tcp.port + 1} * 2 == 162", [0]),
        ("(tcp.port + 1) * 2 == 162", [0]),
        ("80 < tcp.port < 1000", [1]),
        ("http.time + 1s > 2", [1]),
        ("max(tcp.port, tcp.port) > 79", [0, 1]),
        ("min(tcp.port) < 60", [2]),
        ("abs(tcp.port - 100) == 20", [0]),
        ("tcp.port in {tcp.port}", [0, 1, 2]),
        # logic
        ("dns and not tcp.port == 80", [1, 3]),
        ('http.host == "bar" or tcp.port == 53 and dns', [1]),
        ("dns xor tcp.port", [2, 3]),
        ("tcp.port == tcp.port", [0, 1, 2]),
        (" or ".join(f"tcp.port == {n}" for n in range(500)), [0, 1, 2]),
        ("tcp.port == 80 " + "and tcp.port < 1000 " * 300, [0]),
    ],
)
def test_a_filter_selects(text, rows):
    assert selected(text) == rows


@pytest.mark.parametrize(
    "text",
    ["tcp.port == 80", "tcp.port in {80}", "ip.addr != 10.0.0.1", "dns.a", "dns", "frame[0:2] & 1234"],
)
def test_the_opposite_of_a_filter_selects_all_other_rows(text):
    assert sorted(selected(text) + selected(f"!({text})")) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "part", "reason"),
    [
        ("tcp.prot == 1", "tcp.prot", "there is no field tcp.prot; the nearest is tcp.port"),
        ("nonsense", "nonsense", "there is no field nonsense; 'stratokit fields' lists them"),
        ("http.host == http.hots", "http.hots", "the nearest is http.host"),
        ("ip.addr == foo", "foo", "there is no field foo; ip.addr is an IPv4 address"),
        ('tcp.port == "x"', '"x"', "tcp.port is a number"),
        ("tcp.port == 10ms", "10ms", "tcp.port is a number"),
        ("ip.addr == 3", "3", "ip.addr is an IPv4 address"),
        ("ip.addr == ::1", "::1", "ip.addr is an IPv4 address; ::1 belongs with ipv6.addr"),
        ("ipv6.addr == 1.2.3.4", "1.2.3.4", "belongs with ip.addr"),
        ("ip.addr > 10.0.0.0/8", "10.0.0.0/8", "a network has no order"),
        ("tcp.flags.syn == 2", "2", "tcp.flags.syn is true or false"),
        ('tcp.port contains "8"', '"8"', "'contains' searches texts"),
        ('frame matches "("', '"("', "this is no regular expression: missing )"),
        ('frame matches "(?=x)"', '"(?=x)"', "this is no regular expression"),
        ("frame contains 1:2:xyz", "1:2:xyz", "frame is bytes"),
        ("tcp.port == 80-1", "80-1", "tcp.port is a number"),
        ("tcp.port-1 == 80", "tcp.port-1", "'minus' stands between spaces"),
        ("tcp.port == 18446744073709551616", "18446744073709551616", "beyond"),
        ("tcp.port == " + "9" * 5000, "9" * 5000, "tcp.port is a number"),
        ("frame.time == 1e5", "1e5", "frame.time is a time"),
        ("tcp.port[0] == 1", "tcp.port[0]", "slices are made of"),
        ("tcp.flags.syn + 1 == 1", "tcp.flags.syn + 1", "'+' does not apply"),
        ("http.time * 2 == 1", "http.time * 2", "'*' does not apply"),
        ("-http.host == 1", "-http.host", "no sign"),
        ("max(tcp.port, http.time) > 1", "max(tcp.port, http.time)", "one type"),
        ("frame & 00:11:22 == 00", "frame & 00:11:22", "a mask has"),
        ("dns.a == ip.addr", "ip.addr", "any number of values"),
        ("all ip.addr in {ip.addr}", "ip.addr", "written values"),
        ("dns[0] == 1", "dns", "stands alone"),
        ('http.host matches "("', '"("', "this is no regular expression: unclosed group"),
        ("dns == 1", "dns", "dns is a protocol, which stands alone"),
        ("80 == 80", "80 == 80", "one must be a field"),
        ("tcp.port == http.host", "http.host", "tcp.port is a number, http.host is a text"),
        ("nope(tcp.port) == 1", "nope(tcp.port)", "there is no function nope"),
        ("lower(tcp.port) == 1", "tcp.port", "lower does not apply to a number"),
        ("lower(http.host, http.host) == 1", "lower(http.host, http.host)", "takes one argument"),
        ("tcp.port in {http}", "http", "there is no field http; tcp.port is a number"),
        ("ip.addr in {10.0.0.0/8..10.0.0.1}", "10.0.0.0/8..10.0.0.1", "cannot be the end of a range"),
    ],
)
def test_a_wrong_filter_is_explained(text, part, reason):
    with pytest.raises(FilterError) as caught:
        compile_filter(text, CATALOGUE)
    error = caught.value
    assert text[error.at : error.end] == part
    assert reason in error.reason


def test_a_field_of_another_table_is_named_with_it():
    with pytest.raises(FilterError, match=r"http\.status is known only in the table http"):
        compile_filter("http.status == 1", CATALOGUE, {"http.status": "the table http"})


LAYERS = pl.DataFrame({"outer": ["1.1.1.1", None, None], "own": ["2.2.2.2", "2.2.2.2", None]})


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("ip.src#1 == 1.1.1.1", [0]),
        ("ip.src#1 == 2.2.2.2", [1]),
        ("ip.src#2", [0]),
        ("ip.src#2 == 2.2.2.2 && ip.src#1", [0]),
        ("ip.src#3", []),
        ("ip.src#[1-2] == 2.2.2.2", [0, 1]),
        ("ip.src#[-1] == 2.2.2.2", [0, 1]),
        ("ip.src#[-2:1]", [0]),
        ("ip.src#[2:]", [0]),
        ("ip.src#[:1]", []),
        ("ip.src#[1,3] == 2.2.2.2", [1]),
        ("!ip.src#1", [2]),
        ("ip.src#1[0] == 02", [1]),
        ("ip.src#1 in {1.0.0.0/8}", [0]),
    ],
)
def test_layers_are_counted_from_outside(text, rows):
    both = (_c("outer"), _c("own"))
    spec = FieldSpec("ip.src", "ipv4", both[::-1], "Sources.", layers=(both,))
    condition = compile_filter(text, {"ip.src": spec})
    assert LAYERS.with_row_index().filter(condition)["index"].to_list() == rows


@pytest.mark.parametrize(
    ("text", "rows"), [("udp.port#1", [1]), ("udp.port#2", [0]), ("udp.port#[-1] == 53", [0, 1])]
)
def test_a_layer_whose_value_is_not_known_counts(text, rows):
    table = pl.DataFrame({"port": [53, 53, None], "around": [1, 0, 1]})
    spec = FieldSpec(
        "udp.port", "number", (_c("port"),), "Ports.", layers=((_c("port"),),), around=_c("around")
    )
    found = table.with_row_index().filter(compile_filter(text, {"udp.port": spec}))
    assert found["index"].to_list() == rows


def test_a_field_without_layers_says_which_have_some():
    with pytest.raises(FilterError, match="has no layers here"):
        compile_filter("tcp.port#2 == 80", CATALOGUE)
