"""The grammar: what binds how, positions of nodes, and what errors say and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratokit.errors import UsageError
from stratokit.filters import tree
from stratokit.filters.errors import FilterError
from stratokit.filters.parse import parse


def shape(node) -> object:  # noqa: C901 - a line for each kind of node
    """A tree as nested tuples, short enough to read."""
    match node:
        case tree.Logic(operator=name, tests=tests):
            return (name, *map(shape, tests))
        case tree.Not(test=test):
            return ("not", shape(test))
        case tree.Present(entity=entity):
            return shape(entity)
        case tree.Arithmetic(operator=name, left=left, right=right):
            return (name, shape(left), shape(right))
        case tree.Negative(entity=entity):
            return ("-", shape(entity))
        case tree.Slice(entity=entity, pieces=pieces):
            return ("[]", shape(entity), *((p.first, p.length, p.last) for p in pieces))
        case tree.Compare(operator=name, left=left, right=right):
            return (name, shape(left), shape(right))
        case tree.Member(left=left, choices=choices):
            return ("in", shape(left), *map(shape, choices))
        case tree.Range(low=low, high=high):
            return (shape(low), "..", shape(high))
        case tree.Call(function=name, arguments=arguments):
            return (f"{name}()", *map(shape, arguments))
        case tree.Field(name=name):
            return name
        case tree.Literal(kind="word", text=text):
            return f"={text}"
        case tree.Literal(value=value):
            return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dns", "dns"),
        ("a && b || c", ("or", ("and", "a", "b"), "c")),
        ("a or b and c", ("or", "a", ("and", "b", "c"))),
        ("a xor b or c", ("or", ("xor", "a", "b"), "c")),
        ("a ^^ b && c", ("xor", "a", ("and", "b", "c"))),
        ("(a or b) and c", ("and", ("or", "a", "b"), "c")),
        ("!a && b", ("and", ("not", "a"), "b")),
        ("not (a or b)", ("not", ("or", "a", "b"))),
        ("a and b and c", ("and", "a", "b", "c")),
        ("tcp.port==80", ("==", "tcp.port", "=80")),
        ("tcp.port eq 0x50", ("==", "tcp.port", "=0x50")),
        ("tcp.port ne 80", ("!=", "tcp.port", "=80")),
        ("ip.addr any_ne 10.0.0.1", ("!==", "ip.addr", "=10.0.0.1")),
        ("ip.addr == 10.0.0.0/8", ("==", "ip.addr", "=10.0.0.0/8")),
        ("ipv6.addr == fe80::1", ("==", "ipv6.addr", "=fe80::1")),
        ("t > 10ms", (">", "t", "=10ms")),
        ('h contains "a\\"b\\x41\\n"', ("contains", "h", b'a"bA\n')),
        ('h ~ r"\\d+"', ("matches", "h", b"\\d+")),
        ("p in {1, 2..5, 0x10}", ("in", "p", "=1", ("=2", "..", "=5"), "=0x10")),
        ("p not in {1}", ("not", ("in", "p", "=1"))),
        ("a in {10.0.0.1..10.0.0.9}", ("in", "a", ("=10.0.0.1", "..", "=10.0.0.9"))),
        ('lower(h) == "x"', ("==", ("lower()", "h"), b"x")),
        ("flag == True", ("==", "flag", "True")),
        ("80 < tcp.port", ("<", "=80", "tcp.port")),
        ("1 < a < 9", ("and", ("<", "=1", "a"), ("<", "a", "=9"))),
        ("h == www.example.com", ("==", "h", "www.example.com")),
        ('h == r"a\\"b"', ("==", "h", b'a\\"b')),
        ("h == '\\x41'", ("==", "h", b"A")),
        ('h == "\\xff\\101\u00e4"', ("==", "h", b"\xffA\xc3\xa4")),
        ("e == 00-11-22", ("==", "e", "=00-11-22")),
        ("a + b * c & d", ("&", ("+", "a", ("*", "b", "c")), "d")),
        ("a - b - c == -1", ("==", ("-", ("-", "a", "b"), "c"), "=-1")),
        ("{a + b} * c > 1", (">", ("*", ("+", "a", "b"), "c"), "=1")),
        ("(a + b) * c > 1", (">", ("*", ("+", "a", "b"), "c"), "=1")),
        ("((a))", "a"),
        ("(a) == 1", ("==", "a", "=1")),
        ("(a) in {1}", ("in", "a", "=1")),
        ("not (a) and b", ("and", ("not", "a"), "b")),
        ("tcp.flags & 2", ("&", "tcp.flags", "=2")),
        ("a&&b", ("and", "a", "b")),
        ("a &b", ("&", "a", "b")),
        ("-a < 0", ("<", ("-", "a"), "=0")),
        ("f[0:4]", ("[]", "f", (0, 4, None))),
        ("f[2-5,7, -4:, :3]", ("[]", "f", (2, None, 5), (7, 1, None), (-4, None, None), (0, 3, None))),
        ("f[-4--2]", ("[]", "f", (-4, None, -2))),
        ("lower(f)[0]", ("[]", ("lower()", "f"), (0, 1, None))),
        ("max(a, b) > 1", (">", ("max()", "a", "b"), "=1")),
        ("p in {a, -1..5}", ("in", "p", "a", ("=-1", "..", "=5"))),
        ("ip.addr in {10.0.0.0/8..b}", ("in", "ip.addr", ("=10.0.0.0/8", "..", "b"))),
    ],
)
def test_a_filter_means(text, expected):
    assert shape(parse(text)) == expected


def test_nodes_know_where_they_stand():
    text = "dns && tcp.port == 443"
    node = parse(text)
    assert isinstance(node, tree.Logic)
    assert text[node.at : node.end] == text
    compare = node.tests[1]
    assert isinstance(compare, tree.Compare)
    assert text[compare.at : compare.end] == "tcp.port == 443"
    assert text[compare.right.at : compare.right.end] == "443"


@pytest.mark.parametrize(
    ("text", "at", "reason"),
    [
        ("", 0, "it is empty"),
        ("tcp.port = 80", 9, "comparison is written =="),
        ("(dns", 4, "')' is missing"),
        ("dns)", 3, "an operator"),
        ("dns http", 4, "an operator"),
        ("tcp.port ==", 11, "a field or a value is missing"),
        ("tcp.port in {80 443}", 16, "separated by commas"),
        ("tcp.port in 80", 12, "'{' is missing"),
        ('http.host == "x', 13, "closing quotation mark"),
        ("http.host == 'xy'", 13, "double quotation marks"),
        ('http.host == "\\d"', 14, "no escape"),
        ("tcp[0::2] == 1", 3, "a piece of a slice"),
        ("tcp[5-2] == 1", 3, "this slice is empty"),
        ("tcp[0:0] == 1", 3, "this slice is empty"),
        ("tcp[a] == 1", 3, "a slice is written"),
        ("ip.src == ${ip.dst}", 10, "selected"),
        ("ip.addr#x == 1.2.3.4", 7, "layer"),
        ("ip.addr#0 == 1.2.3.4", 7, "count from 1"),
        ("len(a)", 6, "a comparison is missing"),
        ("tcp.len" + " + 1" * 101, 408, "operators of arithmetic"),
        ("f" + "[1:]" * 101, 405, "slices"),
        ("80", 2, "a comparison is missing"),
        ("any tcp.port", 12, "a comparison is missing"),
        ("(" * 500, 100, "nested"),
        ("f(" * 500, 198, "nested"),
    ],
)
def test_an_error_says_what_and_where(text, at, reason):
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert caught.value.at == at
    assert reason in caught.value.reason
    assert isinstance(caught.value, UsageError)


def test_an_error_marks_the_place():
    with pytest.raises(FilterError) as caught:
        parse("dns && tcp.port = 80")
    assert str(caught.value).splitlines()[1:] == ["  dns && tcp.port = 80", " " * 18 + "^"]


@given(st.text(alphabet="abtcp.ort=!<>&|^~(){}[],\"'0123456789:/ -%\\\n", max_size=40))
def test_any_text_parses_or_raises_a_filter_error(text):
    place: FilterError | tree.Test
    try:
        place = parse(text)
    except FilterError as error:
        place = error
    assert 0 <= place.at <= place.end <= len(text) + 1
