"""Values as they are written in a filter or an option. No dataframes: the recorder's options use it too."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

NS_PER_UNIT = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}
# What a column of 64 bits can hold; longer digits are no value, and would cost quadratic time to read.
_MAX_DIGITS = 40
_DURATION = re.compile(r"(-?)(\d+)(?:\.(\d+))?(ns|us|µs|ms|s|min|m|h)")
_DECIMAL = re.compile(r"(-?)(\d+)\.(\d+)")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.ASCII
)
# As Wireshark shows them: Jan  2, 2026 12:00:00.5
_SHOWN_TIME = re.compile(
    r"([A-Z][a-z]{2}) +(\d{1,2}), +(\d{4})(?: +(\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|UTC)?", re.ASCII
)
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_BYTES = re.compile(r":?[0-9a-fA-F]{1,2}(?:([:.\-])[0-9a-fA-F]{1,2}(?:\1[0-9a-fA-F]{1,2})*)?[:.\-]?")


def integer(text: str) -> int | None:
    """A number as Wireshark reads it: 10, 0x1f, 0b101, and 017 in octal."""
    digits = text.removeprefix("-").lower()
    if not digits[:1].isdigit() or not digits.isascii() or len(digits) > _MAX_DIGITS or "_" in digits:
        return None
    base = {"0x": 16, "0b": 2}.get(digits[:2], 8 if len(digits) > 1 and digits[0] == "0" else 10)
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return -value if text.startswith("-") else value


def decimal_scaled(text: str, scale: int) -> int | None:
    """`text` (digits, perhaps with a point) times `scale`, exact; None when it is no such number."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        whole = integer(text)
        return None if whole is None else whole * scale
    sign, before, after = match.groups()
    if len(before + after) > _MAX_DIGITS:
        return None
    value = (int(before + after) * scale) // int("1" + "0" * len(after))
    return -value if sign else value


def duration_ns(text: str) -> int | None:
    """Nanoseconds of a duration with its unit: 10ms, 1.5s, 2h; None without a unit."""
    match = _DURATION.fullmatch(text)
    if match is None or len(text) > _MAX_DIGITS:
        return None
    sign, before, after, unit = match.groups()
    return decimal_scaled(f"{sign}{int(before)}.{after or 0}", NS_PER_UNIT[unit])


def address(text: str) -> Address | None:
    """An IPv4 or IPv6 address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def network(text: str) -> Network | None:
    """An address with a prefix length; host bits may be set, as in Wireshark."""
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def byte_string(text: str) -> bytes | None:
    """Bytes in hexadecimal: aa:bb, aa-bb, aa.bb, aabb, 0xaabb; a single digit is a byte as well."""
    match = _BYTES.fullmatch(text)
    if match is not None:
        return bytes(int(digits, 16) for digits in re.split("[:.-]", text) if digits)
    digits = text.removeprefix("0x").removeprefix("0X")
    if not digits or not re.fullmatch("[0-9a-fA-F]+", digits) or (len(digits) % 2 and len(digits) > 1):
        return None
    return bytes.fromhex(digits.rjust(2, "0"))


def time_ns(text: str) -> int | None:
    """Nanoseconds since 1970 of `2026-01-31 12:00:00.5`, or of `Jan 31, 2026 12:00:00.5`.

    In UTC unless an offset is written.
    """
    shown = _SHOWN_TIME.fullmatch(text)
    if shown is not None and shown[1] in _MONTHS:
        month, day, year, minutes, seconds, fraction, zone = shown.groups()
        date: str = f"{year}-{_MONTHS.index(month) + 1:02}-{int(day):02}"
    else:
        match = _TIME.fullmatch(text)
        if match is None:
            return None
        date, minutes, seconds, fraction, zone = match.groups()
    offset = "+00:00" if zone in {None, "Z", "UTC"} else zone
    try:
        moment = dt.datetime.fromisoformat(f"{date}T{minutes or '00:00'}:{seconds or '00'}{offset}")
    except ValueError:
        return None
    return int(moment.timestamp()) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
