"""scap blocks of every version, by bytes written here."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from helpers import scap_bytes as sb

from stratokit.errors import FormatError
from stratokit.formats import registry
from stratokit.formats.scap import metadata, params
from stratokit.formats.scap.reader import Events, Listed, ScapReader
from stratokit.schema import scap

READ = (0, 1000, 7, 6, sb.s64(3), sb.u32(100))


def items(path: Path) -> tuple[list[Listed], list[Events], ScapReader]:
    with ScapReader(path) as reader:
        found = list(reader.items())
    lists = [item for item in found if isinstance(item, Listed)]
    return lists, [item for item in found if isinstance(item, Events)], reader


def written(tmp_path: Path, *blocks: bytes) -> Path:
    path = tmp_path / "x.scap"
    path.write_bytes(b"".join(blocks))
    return path


def listed(tmp_path: Path, block: bytes) -> object:
    lists, _, reader = items(written(tmp_path, sb.section(), block))
    assert reader.damage is None
    assert reader.bad_lists == 0
    return lists[1].value


@pytest.mark.parametrize("version", range(1, 10))
def test_process_lists_of_every_version(tmp_path, version):
    entries = (
        sb.process(version, 10, 10, "sh", b"-c\0ls\0", cgroups=b"cpu=/a\0"),
        sb.process(version, 11, 10, "worker"),
    )
    first, second = listed(tmp_path, sb.processes(version, *entries))
    assert (first.tid, first.pid, first.ptid, first.comm, first.exe) == (10, 10, 1, b"sh", b"/bin/sh")
    assert (first.args, first.cwd, first.uid, first.gid) == (b"-c\0ls\0", b"/srv/", 1000, 100)
    assert (second.tid, second.pid, second.comm) == (11, 10, b"worker")
    assert first.exepath == (b"/usr/bin/sh" if version >= 7 else b"")
    assert first.cgroups == (b"cpu=/a\0" if version >= 4 else b"")
    assert first.env == (b"HOME=/root\0" if version >= 3 else b"")
    assert (first.sid, first.vpgid) == (7 if version >= 6 else -1, 8 if version >= 8 else -1)


@pytest.mark.parametrize(("alias", "version"), [(0x8000ABCD, 1), (0x8013ABCD, 2), (0x8014ABCD, 3)])
def test_process_lists_under_their_first_types(tmp_path, alias, version):
    (only,) = listed(tmp_path, sb.processes(version, sb.process(version, 5, 5, "cat"), kind=alias))
    assert (only.tid, only.comm) == (5, b"cat")


@pytest.mark.parametrize("tail", [0, 29, 68, 76, 200])
def test_an_entry_may_be_longer_than_what_is_known_of_it(tmp_path, tail):
    entries = [sb.process(9, tid, tid, "cat", tail=bytes(tail)) for tid in (5, 6)]
    assert [entry.tid for entry in listed(tmp_path, sb.processes(9, *entries))] == [5, 6]


@pytest.mark.parametrize("version", [1, 2])
def test_descriptor_lists(tmp_path, version):
    four = bytes([10, 0, 0, 1]) + bytes([10, 0, 0, 2]) + struct.pack("<HHB", 4000, 80, 2)
    six = bytes(15) + b"\1" + bytes(15) + b"\2" + struct.pack("<HHB", 4001, 53, 3)
    entries = (
        sb.fd(version, 3, 77, 16, sb.file_info(version, "/etc/hosts")),
        sb.fd(version, 4, 78, 3, four),
        sb.fd(version, 5, 79, 4, six),
        sb.fd(version, 6, 80, 5, bytes([0, 0, 0, 0]) + struct.pack("<HB", 80, 2)),
        sb.fd(version, 7, 81, 6, bytes(16) + struct.pack("<HB", 81, 2)),
        sb.fd(version, 8, 82, 8, bytes(16) + sb.sized(b"/run/x.sock")),
        sb.fd(version, 9, 83, 7, sb.sized(b"pipe:[83]")),
        sb.fd(version, 1 << 20, 84, 2, sb.sized(b"/tmp")),
    )
    found = listed(tmp_path, sb.fds(version, 10, *entries))
    assert [(d.fd, d.inode, d.kind) for d in found] == [
        (3, 77, 16), (4, 78, 3), (5, 79, 4), (6, 80, 5), (7, 81, 6), (8, 82, 8), (9, 83, 7), (1 << 20, 84, 2),
    ]  # fmt: skip
    assert (found[0].name, found[0].device) == (b"/etc/hosts", 0xFD01 if version == 2 else 0)
    assert (found[1].local[12:], found[1].remote[12:], found[1].local_port, found[1].remote_port) == (
        bytes([10, 0, 0, 1]),
        bytes([10, 0, 0, 2]),
        4000,
        80,
    )
    assert found[2].remote[-1] == 2
    assert (found[3].local_port, found[5].name, found[6].name) == (80, b"/run/x.sock", b"pipe:[83]")


@pytest.mark.parametrize("kind", [0x205, 0x219, 0x8011ABCD])
def test_interface_lists(tmp_path, kind):
    four = (
        struct.pack("<HH", 1, 4)
        + bytes([10, 1, 2, 3])
        + bytes([255, 255, 0, 0])
        + bytes(4)
        + bytes(8)
        + b"eth0"
    )
    if kind == 0x219:
        four = struct.pack("<I", len(four)) + four
    assert listed(tmp_path, sb.block(kind, four)) == [metadata.InterfaceEntry("eth0", "10.1.2.3/16")]


@pytest.mark.parametrize("kind", [0x206, 0x220, 0x8012ABCD])
def test_user_lists(tmp_path, kind):
    user = (
        struct.pack("<BII", 0, 1000, 100) + sb.sized(b"ann") + sb.sized(b"/home/ann") + sb.sized(b"/bin/sh")
    )
    group = struct.pack("<BI", 1, 100) + sb.sized(b"staff")
    if kind == 0x220:
        user, group = (struct.pack("<I", len(part) + 4) + part for part in (user, group))
    assert listed(tmp_path, sb.block(kind, user + group)) == [
        metadata.User(False, 1000, 100, "ann"),
        metadata.User(True, 0, 100, "staff"),
    ]


@pytest.mark.parametrize("kind", [0x204, 0x208, 0x8010ABCD, 0x216, 0x217, 0x221, 0x222])
def test_event_blocks_of_every_version(tmp_path, kind):
    path = written(
        tmp_path, sb.section(), sb.event(kind, 5_000, 42, 6, sb.s64(3), sb.u32(100), flags=1, cpu=2)
    )
    _, (batch,), _ = items(path)
    (row,) = batch.rows
    assert (row["ts"], row["tid"], row["type"], row["cpu"], row["count"], row["wrong"]) == (
        5_000,
        42,
        6,
        2,
        2,
        0,
    )
    assert row["flags"] == (1 if kind in (0x208, 0x217, 0x222) else 0)
    size = batch.data[row["lens"]]
    assert batch.data[row["params"] : row["params"] + size].tobytes() == sb.s64(3)


def test_lengths_of_large_events_have_four_bytes(tmp_path):
    json = sb.text('{"container":{}}' + " " * 70_000)
    path = written(tmp_path, sb.section(), sb.event(0x221, 1, -1, 324, json, wide=True))
    _, (batch,), _ = items(path)
    assert batch.rows["count"].tolist() == [1]
    assert batch.rows["wide"].tolist() == [1]


@pytest.mark.parametrize(
    ("wrong", "block"),
    [
        (1, sb.event(0x216, 1, 1, 60_000, b"abc")),
        (2, sb.event(0x216, 1, 1, 6, sb.s64(3), length=10_000)),
        (2, sb.event(0x216, 1, 1, 6, sb.s64(3), length=3)),
        (2, sb.event(0x216, 1, 1, 6, sb.s64(3), count=500)),
        (2, sb.event(0x216, 1, 1, 6, sb.s64(3), count=2**32 - 1)),
        (2, sb.block(0x216, b"\0" * 8)),
    ],
)
def test_an_event_that_contradicts_itself_is_marked(tmp_path, wrong, block):
    good = sb.event(0x216, 2, 1, 6, sb.s64(3), sb.u32(1))
    _, (batch,), reader = items(written(tmp_path, sb.section(), block, good))
    assert batch.rows["wrong"].tolist() == [wrong, 0]
    assert reader.damage is None


def test_more_parameters_than_are_known_are_passed(tmp_path):
    path = written(tmp_path, sb.section(), sb.event(0x216, 1, 1, 4, sb.s64(3), b"new", b"newer"))
    _, (batch,), _ = items(path)
    assert (batch.rows["count"][0], batch.rows["wrong"][0]) == (len(scap.events()[4].enter), 0)


def test_blocks_of_other_programs_and_options_of_the_section_are_passed(tmp_path):
    other = sb.block(0xBAD, b"secret")
    path = written(
        tmp_path, sb.section(options=struct.pack("<HH4sHH", 1, 4, b"note", 0, 0)), sb.machine(), other
    )
    path.write_bytes(path.read_bytes() + sb.event(0x216, 1, 1, 6, sb.s64(3), sb.u32(1)) + other)
    lists, (batch,), reader = items(path)
    assert [item.name for item in lists] == ["section", "machine"]
    assert (batch.rows.size, reader.skipped_blocks, reader.damage) == (1, 2, None)


def test_packed_and_joined_files(tmp_path):
    one = sb.section() + sb.machine() + sb.event(0x216, 1, 1, 6, sb.s64(3), sb.u32(1))
    path = tmp_path / "x.scap.gz"
    path.write_bytes(gzip.compress(one + one))
    lists, batches, reader = items(path)
    assert [item.name for item in lists] == ["section", "machine"] * 2
    assert (sum(batch.rows.size for batch in batches), reader.damage) == (2, None)


def test_a_file_cut_at_every_byte(tmp_path):
    process = sb.processes(9, sb.process(9, 5, 5, "cat"))
    events = [sb.event(0x216, n, 5, 6, sb.s64(3), sb.u32(1)) for n in range(3)]
    whole = sb.section() + process + b"".join(events)
    starts = [len(whole) - sum(map(len, events[n:])) for n in range(4)]
    for size in range(28, len(whole)):
        path = written(tmp_path, whole[:size])
        _, batches, reader = items(path)
        complete = sum(size >= start for start in starts[1:])
        assert sum(batch.rows.size for batch in batches) == complete
        at_block = size in (28, *starts)
        assert (reader.damage is None) == at_block, size
        if reader.damage:
            assert reader.damage.counter == "file_cut"


def test_a_block_with_two_lengths_is_damage(tmp_path):
    bad = bytearray(sb.event(0x216, 1, 1, 6, sb.s64(3), sb.u32(1)))
    bad[-4] ^= 4
    path = written(tmp_path, sb.section(), sb.event(0x216, 1, 1, 6, sb.s64(3), sb.u32(1)), bytes(bad))
    _, (batch,), reader = items(path)
    assert batch.rows.size == 1
    assert (reader.damage.counter, reader.damage.offset) == ("file_damaged", 28 + len(bad))


@pytest.mark.parametrize(
    "entry", [struct.pack("<I", 2**31), struct.pack("<I", 3), sb.process(9, 1, 1, "x")[:60], b"\xff" * 40]
)
def test_a_list_that_lies_is_counted(tmp_path, entry):
    path = written(
        tmp_path, sb.section(), sb.processes(9, entry), sb.event(0x216, 1, 1, 6, sb.s64(3), sb.u32(1))
    )
    _, (batch,), reader = items(path)
    assert (reader.bad_lists, batch.rows.size, reader.damage) == (1, 1, None)


def test_big_endian_and_unknown_versions_are_refused(tmp_path):
    for body in (struct.pack(">IHHQ", 0x1A2B3C4D, 1, 2, 0), struct.pack("<IHHQ", 0x1A2B3C4D, 2, 0, 0)):
        with pytest.raises(FormatError, match="no scap file"):
            ScapReader(written(tmp_path, sb.block(0x0A0D0D0A, body)))


def test_sniffing_tells_scap_from_pcapng(tmp_path):
    assert registry.by_content(written(tmp_path, sb.section(), sb.machine())).name == "scap"
    assert (
        registry.by_content(written(tmp_path, sb.section(), sb.processes(1, kind=0x8000ABCD))).name == "scap"
    )
    packets = sb.block(1, struct.pack("<HHI", 1, 0, 0))
    assert registry.by_content(written(tmp_path, sb.section(), packets)).name == "pcapng"


def test_every_event_and_call_is_declared_consistently():
    events = scap.events()
    for name, call in scap.calls().items():
        assert call.type in events, name
        assert call.known in events, name
        assert events[call.known].known, name
    for event in events.values():
        assert event.safe <= len(event.exit)
        assert {param.place for param in (*event.enter, *event.exit)} <= set(params.PLACES)
        assert event.does in params.EFFECTS
