"""Packet files given together are one capture: what mergecap makes of them, without making it."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import polars as pl
import pytest
from helpers.corpus import CORPUS, MARKS
from helpers.frames import eth, fragments4, ipv4, pcap, udp
from helpers.pcapng_bytes import Section
from helpers.tshark import need

from stratokit.engine.capture import Capture
from stratokit.engine.convert import Choices, convert_files
from stratokit.errors import FormatError
from stratokit.formats import capture_frames, merge
from stratokit.schema import load

SECOND = 1_000_000_000
TABLES = ("packets", "flows", "tcp", "http", "dns", "tls")
# Of a file with several interfaces, mergecap tells the file, not the interface.
OF_FILE = {"interface", "ifindex", "packet_block", "packet_options"}
COLUMNS = [c.name for c in load.capture().of_kind("packet") if c.name not in OF_FILE]


def write(path: Path, times_ns: list[int], mark: int) -> Path:
    """UDP packets whose payload tells file and place."""
    packets = [eth(ipv4(udp(bytes([mark, n >> 8, n & 255])), 17)) for n in range(len(times_ns))]
    path.write_bytes(pcap(packets, times_ns=times_ns))
    return path


def read(paths: list[Path]) -> list[tuple[int, int]]:
    """(file, place) of each packet, as `write` marked them."""
    rows = Capture.open(paths).rows("packet").select("frame", pl.col("data").bin.tail(3)).collect()
    assert rows["frame"].to_list() == list(range(1, rows.height + 1))
    return [(data[0], data[1] << 8 | data[2]) for data in rows["data"]]


def one_by_one(files: list[list[int]]) -> list[tuple[int, int]]:
    """What mergecap does: the earliest of all next packets, of equal ones that of the first file."""
    at, found = [0] * len(files), []
    while True:
        heads = [(times[n], f) for f, (times, n) in enumerate(zip(files, at, strict=True)) if n < len(times)]
        if not heads:
            return found
        _, f = min(heads)
        found.append((f, at[f]))
        at[f] += 1


@pytest.mark.parametrize("seed", range(30))
def test_any_times_come_in_the_order_of_mergecap(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(merge, "WINDOW_BYTES", rng.choice([1, 200, 1 << 20]))
    files = []
    for _ in range(rng.randint(2, 5)):
        times = [rng.randrange(1000) + rng.choice([0, 500]) for _ in range(rng.randrange(60))]
        files.append(times if rng.random() < 0.3 else sorted(times))  # clocks may go back
    paths = [write(tmp_path / f"{n}.pcap", times, n) for n, times in enumerate(files)]
    assert read(paths) == one_by_one(files)


def test_rotated_files_are_read_in_order_of_time_not_of_names(tmp_path: Path) -> None:
    for n, name in enumerate(("x.pcap", "x.pcap1", "x.pcap2", "x.pcap10")):
        write(tmp_path / name, [n * SECOND, n * SECOND + 1], n)
    assert [mark for mark, _ in read([tmp_path])] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_datagram_whose_fragments_stand_in_two_files_is_put_together(tmp_path: Path) -> None:
    pieces = [eth(piece) for piece in fragments4(udp(bytes(100)), 17, 64)]
    for n, piece in enumerate(pieces):
        (tmp_path / f"{n}.pcap").write_bytes(pcap([piece], times_ns=[n]))
    rows = Capture.open(tmp_path).rows("packet").select("flow_id", "payload_len").collect().rows()
    assert rows == [(0, None), (0, 100)]


def test_interfaces_and_processes_are_those_of_each_packets_own_file(tmp_path: Path) -> None:
    section = Section()
    for n, name in enumerate((b"one", b"two")):
        frame = eth(ipv4(udp(), 17))
        parts = [section.header(), section.interface((2, b"if-" + name), (9, b"\x09"))]
        parts += [section.process(10 + n, name)]
        # The second packet names a process that its own file does not have.
        parts += [
            section.packet(frame, (0x8001, section.number(number)), time=2 * number + n) for number in (0, 1)
        ]
        (tmp_path / f"{n}.pcapng").write_bytes(b"".join(parts))
        convert_files([tmp_path / f"{n}.pcapng"], tmp_path / f"{n}.parquet")
    whole = None
    for names in (("0.pcapng", "1.pcapng"), ("0.parquet", "1.parquet"), ("0.pcapng", "1.parquet")):
        packets = Capture.open([tmp_path / name for name in names]).rows("packet").collect()
        assert packets.select("interface", "comm", "pid").rows() == [
            ("if-one", "one", 10),
            ("if-two", "two", 11),
            ("if-one", None, None),
            ("if-two", None, None),
        ]
        whole = packets if whole is None else whole
        assert packets.equals(whole)


@pytest.mark.parametrize("window_bytes", [1, capture_frames.WINDOW_BYTES])
def test_a_capture_that_was_made_of_a_packet_file_keeps_what_it_knows_beside_others(
    window_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_frames, "WINDOW_BYTES", window_bytes)
    section = Section()
    frame = eth(ipv4(udp(), 17))
    flags = (2, section.number(2))  # sent
    parts = [section.header(), section.interface()]
    parts += [section.packet(frame, (1, b"said"), flags, time=3), section.packet(frame, time=5)]
    (tmp_path / "0.pcapng").write_bytes(b"".join(parts))
    write(tmp_path / "1.pcap", [4_000, 6_000], 1)
    for n, suffix in enumerate((".pcapng", ".pcap")):
        convert_files([tmp_path / f"{n}{suffix}"], tmp_path / f"{n}.parquet")
    names = ["frame", "comment", "direction", "flow_id", "packet_block", "interface"]
    for pair in (("0.pcapng", "1.pcap"), ("0.parquet", "1.parquet"), ("0.parquet", "1.pcap")):
        paths = [tmp_path / name for name in pair]
        found = Capture.open(paths).rows("packet").select(names).collect()
        assert found.rows() == [
            (1, "said", "out", 0, 6, None),
            (2, None, None, 0, None, None),
            (3, None, None, 0, 6, None),
            (4, None, None, 0, None, None),
        ]
        few = Capture.open(paths).rows("packet").select("frame", "cap_len", "comment").collect()
        assert few["cap_len"].to_list() == [len(frame), len(frame) + 3] * 2
        assert few["comment"].to_list() == ["said", None, None, None]
        convert_files(paths, tmp_path / "all.pcapng", None, Choices())
        assert Capture.open(tmp_path / "all.pcapng").info()["rows"]["packet"] == 4


def test_captures_that_were_made_of_packet_files_have_conversations_in_common(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / f"{n}.pcap", [n * SECOND, n * SECOND + 1], n)
        convert_files([tmp_path / f"{n}.pcap"], tmp_path / f"{n}.parquet")
    flows = Capture.open([tmp_path / f"{n}.parquet" for n in (2, 0, 1)]).table("flows").collect()
    assert flows.select("flow_id", "packets_c2s").rows() == [(0, 6)]


def test_files_without_packets_and_cut_ones_take_no_others_with_them(tmp_path: Path) -> None:
    cut = write(tmp_path / "b.pcap", [1, 3], 1)
    cut.write_bytes(cut.read_bytes()[:-1])
    paths = [write(tmp_path / "a.pcap", [2, 4], 0), cut, write(tmp_path / "c.pcap", [], 2)]
    capture = Capture.open(paths)
    assert capture.rows("packet").select(pl.len()).collect().item() == 3
    assert [(path, damage.counter) for path, damage in capture.damages] == [(cut, "file_cut")]


def test_a_file_of_which_nothing_can_be_read_is_named(tmp_path: Path) -> None:
    bad = write(tmp_path / "b.pcap", [1], 1)
    bad.write_bytes(bad.read_bytes()[:30])
    with pytest.raises(FormatError, match=r"b\.pcap: nothing could be read"):
        read([write(tmp_path / "a.pcap", [2], 0), bad])


def test_secrets_of_all_files_are_kept_when_they_become_one(tmp_path: Path) -> None:
    section = Section()
    lines = [f"CLIENT_RANDOM {n:064x} {n:096x}\n".encode() for n in (1, 2)]
    for n, line in enumerate(lines):
        body = section.number(0x544C534B) + section.number(len(line)) + line
        parts = [section.header(), section.interface(), section.block(10, body)]
        parts += [section.packet(eth(ipv4(udp(), 17)), time=n)]
        (tmp_path / f"{n}.pcapng").write_bytes(b"".join(parts))
    inputs = [tmp_path / "0.pcapng", tmp_path / "1.pcapng"]
    for name in ("x.parquet", "x.pcapng"):
        convert_files(inputs, tmp_path / name)
        assert len(Capture.open(tmp_path / name).secrets) == 2
    convert_files(inputs, tmp_path / "y.parquet", None, Choices(strip_keys=True))
    assert not Capture.open(tmp_path / "y.parquet").secrets


class TestOfTheCorpus:
    pytestmark = MARKS

    @pytest.mark.parametrize(
        ("name", "packets"),
        [
            ("live/dev_lossy/client.pcap", 2500),
            ("live/dev_clean/client.pcap", 1111),
            ("zeek+zeek/testing/btest/Traces/ipv4/fragmented-3.pcap", 3),
        ],
    )
    def test_rotated_files_have_the_tables_of_the_whole(
        self, name: str, packets: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "made").mkdir()
        command = [need("editcap"), "-c", str(packets), str(CORPUS / name), str(tmp_path / "part.pcap")]
        subprocess.run(command, check=True, capture_output=True)
        whole, parts = Capture.open(CORPUS / name), Capture.open(tmp_path)
        assert len(parts.paths) > 1
        for number, path in enumerate(parts.paths):
            convert_files([path], tmp_path / "made" / f"{number:02}.parquet")
        monkeypatch.setattr(capture_frames, "WINDOW_BYTES", 100_000)  # many of a row group
        made = Capture.open(tmp_path / "made")
        mixed = Capture.open(
            [both[n % 2] for n, both in enumerate(zip(parts.paths, made.paths, strict=True))]
        )
        for table in TABLES:
            expected = whole.table(table).collect()
            for capture in (parts, made, mixed):
                assert capture.table(table).collect().equals(expected), (table, capture)

    def test_files_of_the_same_time_have_the_tables_of_what_mergecap_makes(self, tmp_path: Path) -> None:
        """Packets of one capture scattered over files, and another capture moved to its time."""
        source, other = CORPUS / "live/dev_lossy/client.pcap", CORPUS / "live/dev_lossy/server.pcap"
        if not other.exists():
            other = CORPUS / "live/dev_clean/client.pcap"
        files = [tmp_path / f"{n}.pcapng" for n in range(3)]
        rng = random.Random(1)
        of = [rng.randrange(2) for _ in range(4000)]
        for n in range(2):
            numbers = [str(frame + 1) for frame, file in enumerate(of) if file == n]
            subprocess.run([need("editcap"), "-r", str(source), str(files[n]), *numbers], check=True)
        begins = [Capture.open(path).info()["first_ts"] for path in (source, other)]
        shift = (begins[0] - begins[1]) / 1e9
        subprocess.run([need("editcap"), "-t", f"{shift:.9f}", str(other), str(files[2])], check=True)
        subprocess.run([need("mergecap"), "-w", str(tmp_path / "m.pcapng"), *map(str, files)], check=True)
        one, several = Capture.open(tmp_path / "m.pcapng"), Capture.open(files)
        assert not several.is_mapped
        packets = [capture.rows("packet").select(COLUMNS).collect() for capture in (one, several)]
        assert packets[1].equals(packets[0])
        for table in TABLES[1:]:
            found = [capture.table(table).collect() for capture in (one, several)]
            assert found[1].equals(found[0]), table
