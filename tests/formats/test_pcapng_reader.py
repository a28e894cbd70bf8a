"""pcapng as others write it: byte orders, clocks, block types, options, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pcapng_bytes import Section
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.errors import FormatError
from stratokit.formats import registry
from stratokit.formats.frames import FrameBatch
from stratokit.formats.pcapng import PcapngReader, cold, walk
from stratokit.formats.pcapng import reader as reader_module
from stratokit.formats.pcapng.options import packet_options

ORDERS = pytest.mark.parametrize("order", ["<", ">"])


def read(path: Path, content: bytes) -> tuple[list[dict[str, Any]], PcapngReader]:
    """Rows of all packets, with their bytes and options."""
    path.write_bytes(content)
    rows = []
    with PcapngReader(path) as reader:
        for batch in reader.batches():
            options = packet_options(batch, reader.processes)
            for array in options.values():
                array.validate(full=True)
            rows += [
                one(batch, i) | {k: v[i].as_py() for k, v in options.items()}
                for i in range(len(batch.offsets))
            ]
    return rows, reader


def one(batch: FrameBatch, i: int) -> dict[str, Any]:
    at, size = int(batch.offsets[i]), int(batch.cap_lens[i])
    return {
        "frame": batch.data[at : at + size].tobytes(),
        "orig_len": int(batch.orig_lens[i]),
        "link_type": int(batch.link_types[i]),
        "ts_ns": int(batch.ts_ns[i]),
        "interface": int(batch.interfaces[i]),
    }


@ORDERS
def test_all_packet_blocks(tmp_path: Path, order: str) -> None:
    s = Section(order)
    content = s.header() + s.interface(snaplen=6)
    content += s.packet(b"abcde", time=3_000_000, orig_len=99) + s.simple_packet(b"abcdefgh", orig_len=1000)
    content += s.obsolete_packet(b"abc", time=4_000_000)
    rows, reader = read(tmp_path / "x.pcapng", content)
    assert reader.damage is None
    assert [(r["frame"], r["orig_len"], r["ts_ns"]) for r in rows] == [
        (b"abcde", 99, 3_000_000_000),
        (b"abcdef", 1000, 0),
        (b"abc", 3, 4_000_000_000),
    ]


@ORDERS
def test_sections_have_their_own_interfaces_and_byte_order(tmp_path: Path, order: str) -> None:
    one_, two = Section(order), Section(">")
    content = (
        one_.header() + one_.interface(link_type=101) + one_.interface() + one_.packet(b"a", interface=1)
    )
    content += two.header((4, b"other")) + two.interface(link_type=113) + two.packet(b"b")
    rows, reader = read(tmp_path / "x.pcapng", content)
    assert [(r["interface"], r["link_type"]) for r in rows] == [(1, 1), (2, 113)]
    assert reader.sections == [[], [(4, b"other")]]


@ORDERS
def test_options_of_packets(tmp_path: Path, order: str) -> None:
    s = Section(order)
    content = s.header() + s.interface() + s.process(501, b"curl") + s.process(7, b"nginx")
    content += s.packet(b"a", (2, s.number(2)), (8, s.number(501) + s.number(502)), (0x8001, s.number(0)))
    content += s.packet(b"b", (2, s.number(1)), (4, s.number(2**40, 8)), (1, b"one\nmore"), (1, b"two"))
    content += s.packet(b"c", (0x8001, s.number(1)), (1, "\xe4".encode("latin-1")))
    content += s.packet(b"d", (1, b"pid=5 tid=6 comm=a b ctr=abc pod=ns/web-1 dir=in"), (1, b"mine"))
    content += s.packet(b"e", (8, b"bad"), (0x8001, s.number(99)))
    rows, _ = read(tmp_path / "x.pcapng", content)
    names = ("direction", "dropcount", "pid", "tid", "comm", "container_id", "pod", "namespace", "comment")
    assert [tuple(r[n] for n in names) for r in rows] == [
        ("out", None, 501, 502, "curl", None, None, None, None),
        ("in", 2**40, None, None, None, None, None, None, "one\n\tmore\ntwo"),
        (None, None, 7, None, "nginx", None, None, None, "\ufffd"),
        (None, None, 5, 6, "a b", "abc", "web-1", "ns", "mine"),
        (None, None, None, None, None, None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("resolution", "time", "expected"),
    [
        (None, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (b"\x09", 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (b"\x00", 1_700_000_000, 1_700_000_000_000_000_000),
        (b"\x03", 1_700_000_000_123, 1_700_000_000_123_000_000),
        (b"\x0c", 1_700_000_123_456_789_012, 1_700_000_123_456_789),
        (b"\x7f", 2**63, 0),
        (b"\x80", 1_700_000_000, 1_700_000_000_000_000_000),
        (b"\x94", 1_700_000_000 << 20 | 1 << 19, 1_700_000_000_500_000_000),
        (b"\xa0", 1_700_000_000 << 32 | 1 << 31, 1_700_000_000_500_000_000),
        (b"\xbf", 2**63 - 1, 999_999_999),
        (b"\xff", 2**64 - 1, 1),
    ],
)
def test_clocks(tmp_path: Path, resolution: bytes | None, time: int, expected: int) -> None:
    s = Section()
    offset = (14, (-5).to_bytes(8, "little", signed=True))
    options = [(9, resolution)] if resolution else []
    content = s.header() + s.interface(*options) + s.interface(*options, offset)
    content += s.packet(b"a", time=time) + s.packet(b"a", interface=1, time=time)
    rows, _ = read(tmp_path / "x.pcapng", content)
    assert [r["ts_ns"] for r in rows] == [expected, expected - 5_000_000_000]


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1))
def test_clocks_in_arrays_and_in_python_agree(resolution: int, time: int, offset: int) -> None:
    mode, factor = reader_module.clock(resolution)
    fast = walk.nanoseconds(np.uint64(time), np.uint8(mode), np.uint64(factor), np.int64(offset))
    exact = reader_module.nanoseconds(time, mode, factor, offset)
    # Finer clocks than 2^-34 s are cut before they are multiplied.
    assert abs(int(fast) - exact) <= (mode == walk.SHIFT)


@ORDERS
def test_names_statistics_secrets_and_unknown_blocks(tmp_path: Path, order: str) -> None:
    s = Section(order)
    record = s.number(1, 2) + s.number(9, 2) + bytes([10, 0, 0, 1]) + b"web\0" + b"\0" + bytes(3)
    content = s.header() + s.interface() + s.block(4, record + bytes(4))
    content += s.block(5, s.number(0) + s.number(0) + s.number(1_000_000) + s.options((4, s.number(9, 8))))
    content += (
        s.block(10, s.number(0x544C534B) + s.number(3) + b"key\0") + s.block(0xBAD, b"1234") + s.packet(b"a")
    )
    rows, reader = read(tmp_path / "x.pcapng", content)
    assert len(rows) == 1
    assert reader.names == {"10.0.0.1": ["web"]}
    assert [(x.interface, x.ts_ns, x.options) for x in reader.statistics] == [
        (0, 1_000_000_000, ((4, s.number(9, 8)),))
    ]
    assert reader.secrets == [(0x544C534B, b"key")]
    assert reader.skipped_blocks == 1


def test_interfaces_keep_their_options(tmp_path: Path) -> None:
    s = Section()
    options = ((2, b"eth0"), (3, b"uplink"), (11, b"\0tcp"), (9, b"\x09"))
    rows, reader = read(
        tmp_path / "x.pcapng", s.header() + s.interface(*options, snaplen=100) + s.packet(b"a")
    )
    (found,) = reader.interfaces
    assert (found.name, found.description, found.snaplen, found.options) == ("eth0", "uplink", 100, options)
    assert rows[0]["frame"] == b"a"


DAMAGE = [
    (lambda s: s.packet(b"x")[:-1], "file_cut"),
    (lambda s: s.packet(b"x")[:3], "file_cut"),
    (lambda s: s.number(6) + s.number(8) + bytes(40), "file_damaged"),
    (lambda s: s.number(6) + s.number(30) + bytes(40), "file_damaged"),
    (lambda s: s.number(6) + s.number(2**31) + bytes(40), "file_damaged"),
    (lambda s: s.packet(b"x")[:-4] + s.number(99), "file_damaged"),
    (lambda s: s.packet(b"x", interface=5), "file_damaged"),
    (lambda s: s.packet(b"x", cap_len=1000), "file_damaged"),
    (lambda s: s.block(6, b"1234"), "file_damaged"),
    (lambda s: s.block(3, b""), "file_damaged"),
    (lambda s: s.block(1, b"1234"), "file_damaged"),
    (lambda s: s.block(5, s.number(9) + bytes(8)), "file_damaged"),
    (lambda s: s.header(version=2), "file_damaged"),
    (lambda s: s.header()[:4] + bytes(40), "file_damaged"),
]


@pytest.mark.parametrize("number", range(len(DAMAGE)))
@ORDERS
def test_damage_is_named_and_what_came_before_is_there(tmp_path: Path, order: str, number: int) -> None:
    build, counter = DAMAGE[number]
    s = Section(order)
    good = s.header() + s.interface() + s.packet(b"first") + s.packet(b"second")
    rows, reader = read(tmp_path / "x.pcapng", good + build(s) + b"")
    assert [r["frame"] for r in rows] == [b"first", b"second"]
    assert reader.damage is not None
    assert (reader.damage.counter, reader.damage.offset) == (counter, len(good))


def test_every_cut_delivers_what_is_whole(tmp_path: Path) -> None:
    s = Section()
    head = s.header() + s.interface()
    packets = [s.packet(bytes([i]) * i, (1, b"c")) for i in range(5)]
    whole = head + b"".join(packets)
    ends = {len(head) + sum(len(p) for p in packets[:n]): n for n in range(6)}
    for size in range(28, len(whole) + 1):
        rows, reader = read(tmp_path / "x.pcapng", whole[:size])
        assert len(rows) == max([n for end, n in ends.items() if end <= size], default=0)
        assert (reader.damage is None) == (size in ends or size == len(s.header()))


def test_no_section_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    for content in (b"", Section().header()[:20], b"\x0a\x0d\x0d\x0a" + bytes(40)):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="no pcapng file"):
            PcapngReader(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_files_never_raise(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    s = Section(data.draw(st.sampled_from("<>")))
    content = bytearray(
        s.header((4, b"app"))
        + s.interface((2, b"lo"), (9, b"\x06"))
        + s.process(5, b"curl")
        + s.packet(b"abc", (1, b"hello"), (2, s.number(1)), (8, s.number(1, 8)), (0x8001, s.number(0)))
        + s.simple_packet(b"abcd")
        + s.obsolete_packet(b"abcd", (1, b"x"))
        + s.block(4, s.number(1, 2) + s.number(8, 2) + b"\1\2\3\4abc\0" + bytes(4))
        + s.block(5, bytes(12))
        + s.block(10, bytes(12))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(12, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.pcapng"
    read(path, bytes(content[: data.draw(st.integers(28, len(content)))]))


def test_a_window_boundary_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = Section()
    content = s.header() + s.interface()
    for i in range(50):
        content += s.packet(bytes([i]) * (i * 7), (1, f"comment {i}".encode()), time=i)
        if i % 10 == 0:
            content += s.process(i, b"p") + s.interface()
    expected, _ = read(tmp_path / "x.pcapng", content)
    for size in (16, 64, 100, 1000):
        monkeypatch.setattr(reader_module, "WINDOW_BYTES", size)
        assert read(tmp_path / "x.pcapng", content)[0] == expected


def test_scap_is_not_taken_for_pcapng() -> None:
    s = Section()
    for following, name in ((s.interface(), "pcapng"), (s.block(0x201, bytes(20)), "scap")):
        form = registry.by_head(s.header() + following)
        assert form is not None
        assert form.name == name


def test_more_interfaces_than_any_file_has_stand_under_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reader_module, "INTERFACES_KEPT", 3)
    monkeypatch.setattr(cold, "BYTES_MAX", 1000)
    s = Section()
    content = s.header() + b"".join(s.interface((2, f"eth{i}".encode())) for i in range(9))
    content += b"".join(s.packet(b"abc", interface=i) for i in range(9)) + s.block(5, bytes(12)) * 4
    content += s.header() + s.interface((9, b"\x09")) + s.packet(b"def", time=77)
    path = tmp_path / "x.pcapng"
    path.write_bytes(content)
    with reader_module.PcapngReader(path) as reader:
        batches = list(reader.batches())
        assert [n for b in batches for n in b.interfaces.tolist()] == [0, 1, 2] + [3] * 7
        assert [i.name for i in reader.interfaces] == ["eth0", "eth1", "eth2", ""]
        assert batches[-1].ts_ns.tolist()[-1] == 77
        assert reader.skipped_blocks == 6 + 4
        assert (reader.cold, reader.damage) == ([], None)
