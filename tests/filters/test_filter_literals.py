"""Values as they are written: numbers, durations, addresses, times."""

from __future__ import annotations

import pytest

from stratokit.filters import literals


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("0x1f", 31),
        ("0b101", 5),
        ("017", 15),
        ("-3", -3),
        ("0", 0),
        ("08", None),
        ("x", None),
        ("", None),
    ],
)
def test_numbers_are_read_as_wireshark_reads_them(text, value):
    assert literals.integer(text) == value


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10ms", 10_000_000),
        ("1.5s", 1_500_000_000),
        ("0.001us", 1),
        ("2m", 120_000_000_000),
        ("1h", 3_600_000_000_000),
        ("09s", 9_000_000_000),
        ("-1ms", -1_000_000),
        ("10", None),
        ("ms", None),
        ("1 s", None),
    ],
)
def test_durations_carry_their_unit(text, ns):
    assert literals.duration_ns(text) == ns


def test_decimal_numbers_are_scaled_exactly():
    assert literals.decimal_scaled("0.1", 10**9) == 100_000_000
    assert literals.decimal_scaled("1234567.123456789", 10**9) == 1_234_567_123_456_789
    assert literals.decimal_scaled("-0.5", 10) == -5


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-01-01", 1_767_225_600_000_000_000),
        ("2026-01-01 00:00:01", 1_767_225_601_000_000_000),
        ("2026-01-01T00:00:00.000000001Z", 1_767_225_600_000_000_001),
        ("2026-01-01 01:00:00 +0100", 1_767_225_600_000_000_000),
        ("2026-13-01", None),
        ("yesterday", None),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text, ns):
    assert literals.time_ns(text) == ns


def test_networks_may_have_host_bits_set():
    assert str(literals.network("10.0.0.7/24")) == "10.0.0.0/24"
    assert literals.network("10.0.0.7") is None
    assert literals.network("10.0.0.0/33") is None
