"""The grammar: what binds how, positions of nodes, and what errors say and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratokit.errors import UsageError
from stratokit.filters import tree
from stratokit.filters.errors import FilterError
from stratokit.filters.parse import parse


def shape(node) -> object:
    """A tree as nested tuples, short enough to read."""
    match node:
        case tree.Logic(operator=name, tests=tests):
            return (name, *map(shape, tests))
        case tree.Not(test=test):
            return ("not", shape(test))
        case tree.Present(field=field):
            return field.name
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
        case tree.Literal(value=value):
            return value if isinstance(value, int | str) else str(value)


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
        ("tcp.port==80", ("==", "tcp.port", 80)),
        ("tcp.port eq 0x50", ("==", "tcp.port", 80)),
        ("tcp.port ne 80", ("!=", "tcp.port", 80)),
        ("ip.addr any_ne 10.0.0.1", ("!==", "ip.addr", "10.0.0.1")),
        ("ip.addr == 10.0.0.0/8", ("==", "ip.addr", "10.0.0.0/8")),
        ("ipv6.addr == fe80::1", ("==", "ipv6.addr", "fe80::1")),
        ("t > 10ms", (">", "t", 10_000_000)),
        ('h contains "a\\"b\\x41\\n"', ("contains", "h", 'a"bA\n')),
        ('h ~ r"\\d+"', ("matches", "h", "\\d+")),
        ("p in {1, 2..5, 0x10}", ("in", "p", 1, (2, "..", 5), 16)),
        ("p not in {1}", ("not", ("in", "p", 1))),
        ("a in {10.0.0.1..10.0.0.9}", ("in", "a", ("10.0.0.1", "..", "10.0.0.9"))),
        ('lower(h) == "x"', ("==", ("lower()", "h"), "x")),
        ("flag == True", ("==", "flag", 1)),
        ("80 < tcp.port", ("<", 80, "tcp.port")),
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
        ("tcp.port in {http}", 13, "quotation marks"),
        ('http.host == "x', 13, "closing quotation mark"),
        ("http.host == 'x'", 13, "double quotation marks"),
        ("a & b", 2, "&&"),
        ("tcp[0:2] == 1", 3, "slices"),
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
