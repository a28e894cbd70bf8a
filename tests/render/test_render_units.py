"""Numbers as people read them."""

from __future__ import annotations

import pytest

from stratokit.render import units


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0"),
        (999, "999 ns"),
        (1_000, "1.00 us"),
        (1_234_567, "1.23 ms"),
        (12_345_678, "12.3 ms"),
        (123_456_789, "123 ms"),
        (999_499, "999 us"),
        (999_999, "1.00 ms"),
        (999_999_999, "1.00 s"),
        (59_900_000_000, "59.9 s"),
        (125_000_000_000, "2 m 05 s"),
        (3_725_000_000_000, "1 h 02 m"),
        (-1_500_000, "-1.50 ms"),
    ],
)
def test_durations(ns, text):
    assert units.duration(ns) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (999_999, "1.00 MB"),
        (123_456_789, "123 MB"),
        (2**63, "9223 PB"),
    ],
)
def test_sizes(count, text):
    assert units.size(count) == text


def test_moments_keep_every_microsecond():
    assert units.moment(1_767_225_600_123_456_789) == "2026-01-01 00:00:00.123456"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("grün → 文", "grün → 文"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eevil", "\\u202eevil"),
    ],
)
def test_text_from_a_capture_cannot_steer_a_terminal(text, safe):
    assert units.clean(text) == safe
