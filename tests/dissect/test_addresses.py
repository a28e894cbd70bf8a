"""Addresses as text equal inet_ntop's, and each distinct one is made once."""

from __future__ import annotations

import socket

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.dissect.addresses import address_column, versions_of

MAPPED = bytes(10) + b"\xff\xff"


def column(*addresses: bytes, versions: list[int] | None = None) -> pa.DictionaryArray:
    array = np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)
    return address_column(array, np.array(versions or versions_of(array), np.uint8))


def test_ipv4_ipv6_and_null() -> None:
    one = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    found = column(MAPPED + bytes([10, 0, 0, 255]), one, bytes(16), versions=[4, 6, 0])
    assert found.to_pylist() == ["10.0.0.255", "2001:db8::1", None]


def test_the_same_bytes_are_two_addresses_in_two_versions() -> None:
    address = MAPPED + bytes([1, 2, 3, 4])
    assert column(address, address, versions=[4, 6]).to_pylist() == ["1.2.3.4", "::ffff:1.2.3.4"]


def test_each_distinct_address_is_made_once() -> None:
    found = column(*[MAPPED + bytes([10, 0, 0, i % 3]) for i in range(1000)])
    assert found.dictionary.to_pylist() == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]
    assert found.type == pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    "text",
    [
        "::",
        "::1",
        "1::",
        "1::8",
        "0:1:0:1:0:1:0:1",
        "1:0:0:2::3",
        "0:0:1::1",
        "fe80::1:0:0:1",
        "2001:db8:0:1:1:1:1:1",
        "::1.2.3.4",
        "::ffff:0.0.0.0",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "1:2:3:4:5:6:7:0",
        "0:2:3:4:5:6:7:8",
        "::2:3:4:5:6:7",
    ],
)
def test_known_forms(text: str) -> None:
    packed = socket.inet_pton(socket.AF_INET6, text)
    assert column(packed, versions=[6]).to_pylist() == [socket.inet_ntop(socket.AF_INET6, packed)]


groups = st.one_of(st.just(0), st.just(0xFFFF), st.integers(0, 0xFFFF))


@settings(deadline=None)
@given(st.lists(st.lists(groups, min_size=8, max_size=8), min_size=1, max_size=50))
def test_any_address_is_as_inet_ntop_has_it(addresses: list[list[int]]) -> None:
    packed = [b"".join(group.to_bytes(2, "big") for group in address) for address in addresses]
    expected = [socket.inet_ntop(socket.AF_INET6, address) for address in packed]
    assert column(*packed, versions=[6] * len(packed)).to_pylist() == expected
    expected = [socket.inet_ntop(socket.AF_INET, address[12:]) for address in packed]
    assert column(*packed, versions=[4] * len(packed)).to_pylist() == expected


def test_no_addresses() -> None:
    assert len(address_column(np.empty((0, 16), np.uint8), np.empty(0, np.uint8))) == 0
