"""Numbers as people read them. Frames keep nanoseconds and bytes; only here do units change."""

from __future__ import annotations

import datetime as dt

_TIME_STEPS = ((1, "ns"), (1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s"))
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def _short(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def duration(ns: int) -> str:
    """1.23 ms; from a hundred seconds on 2 m 05 s, from an hour on 1 h 02 m.

    >>> duration(1_234_567), duration(125_000_000_000), duration(0)
    ('1.23 ms', '2 m 05 s', '0')
    """
    size = abs(ns)
    sign = "-" if ns < 0 else ""
    if size == 0:
        return "0"
    if size >= 3_600_000_000_000:
        minutes = round(size / 60_000_000_000)
        return f"{sign}{minutes // 60} h {minutes % 60:02} m"
    if size >= 99_950_000_000:
        seconds = round(size / 1_000_000_000)
        return f"{sign}{seconds // 60} m {seconds % 60:02} s"
    if size < 1_000:
        return f"{ns} ns"
    # Rounded first, so that 999,999 ns is 1.00 ms and not 1000 us.
    scale, unit = next((s, u) for s, u in reversed(_TIME_STEPS) if size >= s * 0.9995)
    return f"{sign}{_short(size / scale)} {unit}"


def size(count: int) -> str:
    """12 B, 3.45 kB, 1.20 MB: powers of 1000.

    >>> size(999), size(3_450), size(999_999)
    ('999 B', '3.45 kB', '1.00 MB')
    """
    if count < 1_000:
        return f"{count} B"
    value, step = float(count), 0
    while value >= 999.5 and step < len(_SIZES) - 1:
        value, step = value / 1_000, step + 1
    return f"{_short(value)} {_SIZES[step]}"


def number(value: int) -> str:
    """With a comma between thousands."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """1 process, 2 processes; of what cannot be counted one word."""
    plural = "" if value == 1 or noun == "plaintext" else "es" if noun.endswith("s") else "s"
    return f"{number(value)} {noun}{plural}"


def moment(ns: int) -> str:
    """A time in UTC, to the microsecond."""
    time = dt.datetime.fromtimestamp(ns // 1_000_000_000, tz=dt.UTC)
    return f"{time:%Y-%m-%d %H:%M:%S}.{ns % 1_000_000_000 // 1_000:06}"


def clean(text: str) -> str:
    """Text from a capture, made safe for a terminal: what is not printable is spelled as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
