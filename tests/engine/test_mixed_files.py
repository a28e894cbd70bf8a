"""Packets and events in one pcapng file: what Wireshark lists, and what we read back."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import polars as pl
import pytest
from helpers import scap_bytes as sb
from helpers import sysdig, tshark

from stratokit.engine import convert
from stratokit.engine.capture import Capture
from stratokit.errors import FormatError, UsageError
from stratokit.formats import mixed
from stratokit.formats.pcapng import merged
from stratokit.schema import scap

SAMPLES = Path(__file__).parents[2] / "sample_captures"
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
WITH_EVENTS = convert.Choices(with_events=True)
# Names of the first calls where Wireshark 4.0 knows no event of a later one, or none at all.
OLDER = sysdig.OLDER | {"clone3": "clone", "accept4": "accept"}


@pytest.fixture(scope="module", params=["mixed", "nginx-curl"])
def made(request, tmp_path_factory):
    """(the recording, the pcapng file)"""
    source, path = SAMPLES / f"{request.param}.parquet", tmp_path_factory.mktemp("both") / "x.pcapng"
    convert.convert_files([source], path, choices=WITH_EVENTS)
    return source, path


def time_ns(text: str) -> int:
    seconds, nanoseconds = text.split(".")
    return int(seconds) * 10**9 + int(nanoseconds)


def frames(path: Path) -> list[tuple[int, str]]:
    """(time, what) of each frame as tshark lists it: "packet", or the name of the event."""
    rows = tshark.fields(path, "frame.time_epoch", "frame.protocols", "sysdig.event_type")
    names = {event.type: event.name for event in scap.events().values()}
    return [
        (time_ns(ts), names[int(type_) & ~1] if protocols == "sysdig" else "packet")
        for ts, protocols, type_ in rows
    ]


def expected(source: Path) -> list[tuple[int, str]]:
    """What a recording has to list: packets once, calls when they returned, ends of processes, sockets."""
    capture = Capture.open(source)
    ts = pl.col("ts").cast(pl.Int64)
    packets = (
        capture.rows("packet").select("frame", ts).collect().sort("frame", "ts").unique("frame", keep="first")
    )
    calls = capture.rows("syscall").filter(pl.col("ret").is_not_null())
    calls = calls.select("syscall", ts=ts + pl.col("duration_ns").fill_null(0).cast(pl.Int64)).collect()
    own = {name: OLDER.get(name, name) if call.known else "syscall" for name, call in scap.calls().items()}
    ends = capture.rows("process").filter(event="exit").select(ts).collect()
    sockets = capture.rows("socket").filter(pl.col("event") != "snapshot").select(ts).collect()
    return sorted(
        [
            *((ts, "packet") for ts in packets["ts"]),
            *((ts, own[name]) for name, ts in calls.iter_rows()),
            *((ts, "procexit") for ts in ends["ts"]),
            *((ts, "notification") for ts in sockets["ts"]),
        ]
    )


def test_wireshark_lists_packets_and_events_in_order_of_time(made):
    source, path = made
    found = frames(path)
    assert [ts for ts, _ in found] == sorted(ts for ts, _ in found)
    assert sorted(found) == expected(source)
    assert {what for _, what in found} >= {"packet", "connect", "notification", "procexit"}


def test_wireshark_knows_the_states_of_sockets(made):
    rows = tshark.fields(made[1], "sysdig.param.notification.id", "sysdig.param.notification.desc")
    states = {desc.split()[1] for kind, desc in rows if kind == "tcp.state"}
    assert {"CLOSE->SYN_SENT", "SYN_SENT->ESTABLISHED"} <= states


def test_libpcap_sees_the_packets_alone(made, tmp_path):
    source, path = made
    convert.convert_files([source], tmp_path / "plain.pcapng")
    shown, complaints = tshark.run("tcpdump", "-n", "-r", str(path))
    assert not complaints
    assert shown == tshark.run("tcpdump", "-n", "-r", str(tmp_path / "plain.pcapng"))[0]
    assert "sysdig" not in {row[0] for row in tshark.fields(tmp_path / "plain.pcapng", "frame.protocols")}


COMPARED = ("ts", "tid", "pid", "comm", "syscall", "duration_ns")


def test_events_are_read_back(made):
    source, back = Capture.open(made[0]), Capture.open(made[1])
    assert back.info()["losses"] == {}
    older = pl.col("syscall").replace(OLDER)
    ours, theirs = (
        capture.rows("syscall").with_columns(older).collect().sort("ts", "tid") for capture in (source, back)
    )
    assert ours.select(COMPARED).equals(theirs.select(COMPARED))
    # The generic event has neither results nor arguments.
    own = pl.Series([name for name, call in scap.calls().items() if call.known])
    told = ours["syscall"].is_in(own.replace(OLDER).to_list())
    assert told.sum() > 1_000
    ours, theirs = ours.filter(told), theirs.filter(told)
    # Two events have no parameters at all, and a call that has not returned no result.
    bare = theirs["ret"].is_null()
    assert set(ours.filter(bare, pl.col("ret").is_not_null())["syscall"]) <= {"getsockname", "getpeername"}
    for name in ("ret", "errno", "path", "path2"):
        assert ours.filter(~bare)[name].equals(theirs.filter(~bare)[name]), name
    said = back.rows("event").filter(event="notification").collect().height
    assert said == source.rows("socket").filter(pl.col("event") != "snapshot").collect().height
    assert back.rows("packet").collect().height == source.rows("packet").collect()["frame"].n_unique()
    for name in ("http", "dns"):
        assert back.table(name).collect().height == source.table(name).collect().height
    lived = [c.rows("process").select(pl.col("pid").unique()).collect().height for c in (source, back)]
    assert lived[0] == lived[1]


def test_by_way_of_parquet_both_come_back(made, tmp_path):
    path = made[1]
    convert.convert_files([path], tmp_path / "x.parquet")
    convert.convert_files([tmp_path / "x.parquet"], tmp_path / "again.pcapng", choices=WITH_EVENTS)
    assert frames(tmp_path / "again.pcapng") == frames(path)
    convert.convert_files([tmp_path / "x.parquet"], tmp_path / "plain.pcapng")
    assert [what for _, what in frames(tmp_path / "plain.pcapng") if what != "packet"] == []


@pytest.mark.skipif(not sysdig.SYSDIG, reason="sysdig is not installed")
def test_the_events_alone_open_in_sysdig(made, tmp_path):
    convert.convert_files([made[1]], tmp_path / "x.scap")
    shown = sysdig.events(tmp_path / "x.scap", "evt.type", "evt.dir", "proc.name")
    calls = Capture.open(made[1]).rows("syscall").filter(pl.col("ret").is_not_null()).collect().height
    assert calls > 0
    assert shown.filter(pl.col("evt.dir") == "<").height >= calls


def test_small_pieces_give_the_same_file(made, tmp_path, monkeypatch):
    source, path = made
    for module in ("stratokit.formats.packet_rows", "stratokit.formats.pcapng.merged"):
        monkeypatch.setattr(f"{module}.BUFFER_BYTES", 700)
    assert merged.BUFFER_BYTES == 700
    convert.convert_files([source], tmp_path / "x.pcapng", choices=WITH_EVENTS)
    assert (tmp_path / "x.pcapng").read_bytes() == path.read_bytes()


def test_a_scap_file_becomes_frames_of_wireshark(tmp_path):
    calls = [sb.event(0x216, n, 10, 6, sb.s64(3), sb.u32(9)) for n in range(1_000, 1_010)]
    (tmp_path / "a.scap").write_bytes(sb.section() + sb.machine() + b"".join(calls))
    convert.convert_files([tmp_path / "a.scap"], tmp_path / "a.pcapng", choices=WITH_EVENTS)
    assert frames(tmp_path / "a.pcapng") == [(n, "read") for n in range(1_000, 1_010)]


def test_another_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--with-events is for"):
        convert.convert_files([SAMPLES / "mixed.parquet"], tmp_path / "x.scap", choices=WITH_EVENTS)


def test_other_blocks_are_still_counted_as_passed_over(made, tmp_path):
    data = made[1].read_bytes()
    odd = (0x7777).to_bytes(4, "little") + (12).to_bytes(4, "little") * 2
    (tmp_path / "x.pcapng").write_bytes(data + odd * 3)
    assert Capture.open(tmp_path / "x.pcapng").info()["losses"] == {"block_skipped": 3}


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_give_rows_and_losses(made, tmp_path, seed):
    """The same damage ends both readings, or none, and is told."""
    whole, chance = made[1].read_bytes()[:200_000], random.Random(seed)
    path, rows = tmp_path / "x.pcapng", 0
    ends, at = set(), 0  # of blocks: a file that was cut there lacks nothing that could be known
    while at < len(whole) - 8:
        at += struct.unpack("<I", whole[at + 4 : at + 8])[0]
        ends.add(at)
    for _ in range(8):
        data = bytearray(whole)
        for _ in range(chance.choice((0, 1, 5))):
            data[chance.randrange(200, len(data))] = chance.randrange(256)
        cut = chance.randrange(1_000, len(data))
        del data[cut + (cut in ends) :]
        path.write_bytes(data)
        capture = Capture.open(path)
        try:
            rows += sum(capture.rows(kind).collect().height for kind in ("packet", "syscall", "event"))
            assert capture.info()["losses"]
        except FormatError as error:
            assert "nothing could be read" in str(error)  # noqa: PT017
    assert rows > 1_000


@pytest.mark.kernel
def test_a_recording_of_now(tmp_path):
    from recording import recording

    with recording(tmp_path / "a.parquet") as record:
        subprocess.run(["sh", "-c", "cat /etc/hostname; ls /"], check=True, capture_output=True)
    convert.convert_files([record.path], tmp_path / "a.pcapng", choices=WITH_EVENTS)
    assert sorted(frames(tmp_path / "a.pcapng")) == expected(record.path)


@pytest.mark.parametrize("window", [28, 100, 4096])
def test_events_that_begin_late_are_read_too(made, monkeypatch, window):
    """However many packets are in front of them: here windows are small instead."""
    _, path = made
    monkeypatch.setattr(mixed, "WINDOW_BYTES", window)
    assert mixed.holds_both(path)
    rows = Capture.open(path).info()["rows"]
    assert rows["syscall"] > 0
    assert rows["packet"] > 0


def test_packets_alone_are_no_mixed_file_however_it_is_looked_at(tmp_path, monkeypatch):
    path = tmp_path / "x.pcapng"
    convert.convert_files([SAMPLES / "mixed.parquet"], path)
    for window in (28, 100, 4096, 1 << 24):
        monkeypatch.setattr(mixed, "WINDOW_BYTES", window)
        assert not mixed.holds_both(path)
        assert not mixed.holds_both(cut(path, tmp_path))


def cut(path: Path, tmp_path: Path) -> Path:
    """The same file, cut in the middle of a block."""
    shorter = tmp_path / "cut.pcapng"
    shorter.write_bytes(path.read_bytes()[:-30])
    return shorter
