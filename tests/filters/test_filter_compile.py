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


def test_the_expression_is_never_null():
    for text in (
        "tcp.port == 80",
        "!(tcp.port == 80)",
        "tcp.port in {80}",
        "ip.addr != 10.0.0.1",
        "dns.a",
        "dns",
    ):
        values = ROWS.select(compile_filter(text, CATALOGUE).alias("hit"))["hit"]
        assert values.null_count() == 0, text


@pytest.mark.parametrize(
    ("text", "part", "reason"),
    [
        ("tcp.prot == 1", "tcp.prot", "there is no field tcp.prot; the nearest is tcp.port"),
        ("nonsense", "nonsense", "there is no field nonsense; 'stratokit fields' lists them"),
        ("http.host == foo", "foo", 'write a text in quotation marks: "foo"'),
        ('tcp.port == "x"', '"x"', "tcp.port is a number"),
        ("tcp.port == 10ms", "10ms", "tcp.port is a number"),
        ("http.host == 3", "3", 'http.host is a text, as "..."'),
        ("ip.addr == 3", "3", "ip.addr is an IPv4 address"),
        ("ip.addr == ::1", "::1", "ip.addr is an IPv4 address; ::1 belongs with ipv6.addr"),
        ("ipv6.addr == 1.2.3.4", "1.2.3.4", "belongs with ip.addr"),
        ("ip.addr > 10.0.0.0/8", "10.0.0.0/8", "a network has no order"),
        ("tcp.flags.syn == 2", "2", "tcp.flags.syn is true or false"),
        ('tcp.port contains "8"', '"8"', "'contains' searches texts"),
        ('frame matches "x"', '"x"', "frame is bytes"),
        ('http.host matches "("', '"("', "this is no regular expression: unclosed group"),
        ("dns == 1", "dns", "dns is a protocol, which stands alone"),
        ("80 == 80", "80 == 80", "one must be a field"),
        ("tcp.port == http.host", "http.host", "tcp.port is a number, http.host is a text"),
        ("nope(tcp.port) == 1", "nope(tcp.port)", "there is no function nope"),
        ("lower(tcp.port) == 1", "tcp.port", "lower does not apply to a number"),
        ("lower(http.host, http.host) == 1", "lower(http.host, http.host)", "takes one argument"),
        ("tcp.port in {http}", "http", "quotation marks"),
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
