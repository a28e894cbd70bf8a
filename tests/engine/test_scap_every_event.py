"""Every event of the table in every version of its block: as sysdig prints it, written again to the byte."""

from __future__ import annotations

import struct
import zlib

import polars as pl
import pytest
from helpers import scap_bytes as sb
from helpers import sysdig
from helpers.sysdig_args import differences

from stratokit.engine import convert
from stratokit.engine.capture import Capture
from stratokit.schema import scap

TUPLE = sb.tuple4("10.0.0.1", 4000, "10.0.0.2", 80)
WIDTHS = {"8": 1, "16": 2, "32": 4, "64": 8}
SIZES = {
    "errno": 8, "fd": 8, "pid": 8, "fd32": 4, "pid32": 4, "uid": 4, "gid": 4, "mode": 4, "sigset": 4,
    "sigtype": 1, "syscallid": 2, "port": 2, "reltime": 8, "abstime": 8,
}  # fmt: skip
OTHERS = {
    "sockaddr": TUPLE[:7], "socktuple": TUPLE, "fdlist": struct.pack("<HqH", 1, 5, 1), "dyn": bytes(9),
    "ipv4addr": bytes([10, 0, 0, 1]), "ipv6addr": bytes(16),
}  # fmt: skip


def value(param: scap.Param) -> bytes:
    """The same for parameters of one name, as an entry and its exit have them, and different for others."""
    if param.type in OTHERS:
        return OTHERS[param.type]
    size = SIZES.get(param.type) or WIDTHS.get(param.type.lstrip("abcdefghijklmnopqrstuvwxyz"))
    if size:
        number = 3 + zlib.crc32(param.name.encode()) % 100
        if param.flags:
            table = scap.flags()[param.flags]
            number = (table.get("values") or table["bits"])[-1][1] | (param.flags == "open")
        elif param.place in ("ret", "size"):
            number = 5
        elif param.place in ("tid", "pid"):
            number = 10
        return int(number % (1 << 8 * size)).to_bytes(size, "little")
    return sb.text(param.name) if param.type in ("charbuf", "fspath", "fsrelpath") else b"ab\0"


def types() -> list[tuple[int, tuple[scap.Param, ...], bool]]:
    """(type, parameters, whether lengths are wide)"""
    found = []
    for event in scap.events().values():
        found.append((event.type, event.enter, event.large))
        if not event.single:
            found.append((event.type + 1, event.exit, event.large))
    return found


def head() -> bytes:
    """Lists of everything."""
    out = sb.section() + sb.machine() + sb.processes(9, sb.process(9, 10, 10, "sh"))
    kinds = [
        sb.fd(2, 20 + kind, kind, kind, sb.sized(b"name")) for kind in (1, 2, 7, 9, 10, 11, 12, 13, 14, 15)
    ]
    kinds += [sb.fd(2, 5, 5, 16, sb.file_info(2, "/dev/null"))]
    return out + sb.fds(2, 10, *kinds)


def every_event() -> bytes:
    """Of each type one with all parameters in each kind of block, with fewer, and with more than known."""
    out, ts = head(), 1000
    for type_, params, wide in types():
        values = [value(param) for param in params]
        kinds = (0x221, 0x222) if wide else (0x204, 0x208, 0x8010ABCD, 0x216, 0x217, 0x221, 0x222)
        given = [(kind, values) for kind in kinds]
        given += [(kinds[-1], values[:-1]), (kinds[-1], [*values, b"more"]), (kinds[-1], [b""] * len(values))]
        for kind, parts in given:
            ts += 1
            out += sb.event(kind, ts, 10, type_, *parts, wide=wide)
    return out


@pytest.mark.parametrize("by_parquet", [True, False])
def test_every_event_is_written_again_to_the_byte(tmp_path, by_parquet):
    source = tmp_path / "a.scap"
    source.write_bytes(every_event())
    start = source
    if by_parquet:
        convert.convert_files([source], start := tmp_path / "a.parquet")
    convert.convert_files([start], tmp_path / "b.scap")
    assert (tmp_path / "b.scap").read_bytes() == source.read_bytes()


def test_no_event_is_unknown_or_lost(tmp_path):
    path = tmp_path / "a.scap"
    path.write_bytes(every_event())
    capture = Capture.open(path)
    assert capture.info()["losses"] == {}
    calls = capture.rows("syscall").select("scap_enter_number", "scap_exit_number").collect()
    others = capture.rows("event").select("scap_exit_number").collect()
    numbers = [*calls["scap_enter_number"], *calls["scap_exit_number"], *others["scap_exit_number"]]
    told = sorted(n for n in numbers if n is not None)
    assert told == list(range(1, len(told) + 1))
    assert len(told) > 4000


def known_calls() -> bytes:
    """Entry and exit of each call that sysdig 0.29.3 knows, with the parameters that it knows."""
    out, ts = head(), 1000
    for event in scap.events().values():
        # Of execveat it wants an exit of another type.
        if event.known is None or event.single or not event.exit or event.name in ("syscall", "execveat"):
            continue
        halves = (event.type, event.enter), (event.type + 1, event.exit)
        for (type_, params), count in zip(halves, event.known, strict=True):
            ts += 1
            values = [value(param) for param in params[:count]]
            out += sb.event(0x216, ts, 10, type_, *values, wide=event.large)
    return out


@pytest.mark.skipif(not sysdig.SYSDIG, reason="sysdig is not installed")
def test_sysdig_prints_what_rows_say(tmp_path):
    """Every parameter that rows have a column for."""
    path = tmp_path / "a.scap"
    path.write_bytes(known_calls())
    shown = sysdig.events(path, "evt.dir", "evt.type", "evt.args")
    rows = Capture.open(path).rows("syscall").collect()
    for part, direction in (("enter", ">"), ("exit", "<")):
        ours = rows.with_columns(pl.col(f"scap_{part}_number").cast(pl.Int64))
        theirs = shown.filter(pl.col("evt.dir") == direction)
        both = ours.join(theirs, left_on=f"scap_{part}_number", right_on="evt.num")
        assert both.height == theirs.height > 140
        types = [struct.unpack_from("<H", block, 30)[0] for block in both[f"scap_{part}"]]
        found = differences(both.with_columns(type=pl.Series(types)))
        assert [row for row in found if row[2] is not None] == []
