"""pcapng as we write it: what our reader, tshark, tcpdump and capinfos find in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers import frames, tshark

from stratokit.errors import FormatError
from stratokit.formats.frames import Interface
from stratokit.formats.pcapng import PcapngReader, PcapngWriter, write_pcapng
from stratokit.formats.pcapng.comment_fields import split_comment
from stratokit.formats.pcapng.options import packet_options
from stratokit.formats.pcapng.writer import compact_comment
from stratokit.formats.tables import conform

START = 1_700_000_000_123_456_789
HOST = {"host": '{"hostname": "node-1", "os": "Debian 12", "kernel": "6.18.5", "machine": "x86_64"}'}
POD = {"pod": "my-app", "namespace": "default"}
FOLDED = "first\n\tof two lines\nsecond \u00e4"
NONE = dict.fromkeys(("direction", "pid", "tid", "comm", "container_id", "pod", "namespace"))


def table(*rows: dict[str, Any]) -> pa.Table:
    """Packet rows; what a row does not say is as in a recording of raw IP."""
    full = []
    for i, row in enumerate(rows):
        data = row.get("data", frames.ipv4(frames.tcp(b"payload")))
        default = {
            "frame": i + 1,
            "ts": START + i * 1000,
            "interface": "lo",
            "ifindex": 1,
            "link_type": 101,
            "orig_len": len(data or b""),
        }
        full.append({**default, **row, "data": data})
    names = list(dict.fromkeys(name for row in full for name in row))
    kinds = {"ts": pa.int64()}
    columns = {n: pa.array([row.get(n) for row in full], kinds.get(n)) for n in names}
    columns["ts"] = columns["ts"].cast(pa.timestamp("ns", "UTC"))
    return conform(pa.table(columns), names)


def write(path: Path, *tables: pa.Table, **options: Any) -> Path:
    write_pcapng(path, tables, HOST, **options)
    return path


def read(path: Path) -> tuple[list[dict[str, Any]], PcapngReader]:
    rows = []
    with PcapngReader(path) as reader:
        for batch in reader.batches():
            options = packet_options(batch, reader.processes)
            for i, at in enumerate(batch.offsets.tolist()):
                row = {name: column[i].as_py() for name, column in options.items()}
                row["data"] = batch.data[at : at + int(batch.cap_lens[i])].tobytes()
                row["orig_len"] = int(batch.orig_lens[i])
                row["ts"] = int(batch.ts_ns[i])
                row["interface"] = reader.interfaces[int(batch.interfaces[i])].name
                rows.append(row)
    assert reader.damage is None
    return rows, reader


PROCESSES = table(
    {"direction": "out", "pid": 501, "tid": 502, "comm": "curl", "container_id": "ab" * 32, **POD},
    {"direction": "in", "pid": 7, "tid": 7, "comm": "Web Content", "gso_segments": 3},
    {"data": frames.ipv6(frames.udp(b"odd"), 17), "orig_len": 1000, "interface": "eth0", "ifindex": 2},
    {"direction": "in", "pid": 7, "tid": 8, "comm": "renamed", "comment": FOLDED},
)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    rows, reader = read(write(tmp_path / "x.pcapng", PROCESSES, interfaces=[Interface("lo", 1, 101)]))
    assert [(r["direction"], r["pid"], r["tid"], r["comm"], r["pod"], r["namespace"]) for r in rows] == [
        ("out", 501, 502, "curl", "my-app", "default"),
        ("in", 7, 7, "Web Content", None, None),
        (None, None, None, None, None, None),
        ("in", 7, 8, "renamed", None, None),
    ]
    assert [r["ts"] for r in rows] == [START + i * 1000 for i in range(4)]
    assert [r["interface"] for r in rows] == ["lo", "lo", "eth0", "lo"]
    assert [r["comment"] for r in rows] == [None, None, None, FOLDED]
    assert rows[0]["container_id"] == "ab" * 6
    header = bytes(12)
    assert rows[0]["data"] == header + b"\x08\x00" + PROCESSES["data"][0].as_py()
    assert rows[2]["data"] == header + b"\x86\xdd" + PROCESSES["data"][2].as_py()
    assert rows[2]["orig_len"] == 1014
    assert reader.processes == [(501, "curl"), (7, "Web Content"), (7, "renamed")]
    assert [(i.link_type, i.snaplen) for i in reader.interfaces] == [(1, 262144)] * 2


OWNER = "pid=501 tid=502 comm=curl ctr=abababababab pod=default/my-app dir=out"
COMMENTS = "first\\nof two lines,second \u00e4"
RENAMED = "pid=7 tid=8 comm=renamed dir=in"


def test_tshark_shows_everything_without_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcapng", PROCESSES, interfaces=[Interface("lo", 1, 101)])
    names = (
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "frame.interface_name",
        "frame.packet_flags",
        "frame.comment",
    )
    found = tshark.fields(path, *names, "ip.src", "ipv6.src", "tcp.dstport", "udp.dstport", occurrence="a")
    assert [row[:6] for row in found] == [
        ("1700000000.123456789", "61", "61", "lo", "0x00000002", OWNER),
        ("1700000000.123457789", "61", "61", "lo", "0x00000801", "pid=7 tid=7 comm=Web Content dir=in"),
        ("1700000000.123458789", "1014", "65", "eth0", "", ""),
        ("1700000000.123459789", "61", "61", "lo", "0x00000001", f"{RENAMED},{COMMENTS}"),
    ]
    assert [row[6:] for row in found] == [
        ("10.0.0.1", "", "80", ""),
        ("10.0.0.1", "", "80", ""),
        ("", "2001:db8::1", "", "53"),
        ("10.0.0.1", "", "80", ""),
    ]


def test_tcpdump_and_capinfos_read_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcapng", PROCESSES, interfaces=[Interface("lo", 1, 101)])
    out, complaints = tshark.run("tcpdump", "-n", "-tt", "--nano", "-r", str(path))
    assert not complaints
    assert [line.split()[0] for line in out.splitlines()] == [f"1700000000.12345{n}789" for n in range(6, 10)]
    out, complaints = tshark.run("capinfos", "-M", str(path))
    assert not complaints
    facts = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    assert facts["Number of packets"] == "4"
    assert facts["Capture hardware"] == "x86_64"
    assert facts["Capture oper-sys"] == "Debian 12, 6.18.5"
    assert facts["Capture application"].startswith("stratokit ")
    assert facts["Capture comment"] == "host=node-1"
    assert facts["File encapsulation"] == "ether"


def test_both_sightings_of_a_packet_are_one(tmp_path: Path) -> None:
    out, back = {"direction": "out", "pid": 1, "comm": "a"}, {"direction": "in", "pid": 2, "comm": "b"}
    seen = table(*({**way, "frame": n} for way, n in [(out, 1), (back, 1), (out, 2), (out, 3), (back, 2)]))
    later = table(
        {**back, "frame": 3}, {**back, "frame": 4}, {**back, "frame": None}, {**back, "frame": None}
    )
    rows, _ = read(write(tmp_path / "x.pcapng", seen, later))
    assert [row["pid"] for row in rows] == [1, 1, 1, 2, 2, 2]


def test_losses_are_drop_counts_and_totals(tmp_path: Path) -> None:
    losses = pa.table(
        {
            "ts": pa.array([START + 500, START + 600, START + 10**9, START], pa.timestamp("ns", "UTC")),
            "counter": ["packet_no_space", "packet_read_failed", "packet_no_space", "syscall_no_space"],
            "amount": pa.array([3, 2, 70_000_000_000, 9], pa.uint64()),
        }
    )
    path = write(tmp_path / "x.pcapng", table({}, {}), table({"frame": 3, "ts": START + 2000}), losses=losses)
    rows, reader = read(path)
    assert [row["dropcount"] for row in rows] == [None, 5, None]
    (statistics,) = reader.statistics
    values = {code: value for code, value in statistics.options if code != 1}
    counted = {code: int.from_bytes(value, "little") for code, value in values.items()}
    assert (counted[4], counted[7], counted[8]) == (70_000_000_008, 70_000_000_005, 3)
    first, last = (
        int.from_bytes(values[c][:4], "little") << 32 | int.from_bytes(values[c][4:], "little")
        for c in (2, 3)
    )
    assert (first, last) == (START, START + 2000)
    assert dict(statistics.options)[1] == b"packet_no_space=70000000003 packet_read_failed=2"
    assert tshark.fields(path, "frame.drop_count")[1] == ("5",)


def test_names_of_pods(tmp_path: Path) -> None:
    names = {
        "10.0.0.1": ["web-1.default"],
        "2001:db8::1": ["db-0.data", "db"],
        "no address": ["x"],
        "10.0.0.9": [],
    }
    path = write(tmp_path / "x.pcapng", PROCESSES, names=names)
    assert read(path)[1].names == {"10.0.0.1": ["web-1.default"], "2001:db8::1": ["db-0.data", "db"]}
    out, _ = tshark.run("tshark", "-N", "n", "-r", str(path), "-T", "fields", "-e", "ip.src_host")
    assert out.splitlines()[0] == "web-1.default"


def test_interfaces_with_addresses(tmp_path: Path) -> None:
    interface = Interface(
        "eth0", 2, 1, mac="02:00:00:00:00:01", addresses=("10.0.0.1/24", "fe80::1%eth0/64", "::1/128", "?")
    )
    _, reader = read(write(tmp_path / "x.pcapng", interfaces=[interface, Interface("lo", 1, 101)]))
    options = reader.interfaces[0].options
    assert (4, bytes([10, 0, 0, 1, 255, 255, 255, 0])) in options
    assert (5, bytes(15) + b"\1" + bytes([128])) in options
    assert (6, b"\2\0\0\0\0\1") in options


def test_link_types_are_kept_when_asked(tmp_path: Path) -> None:
    frame = frames.sll(frames.ipv4(frames.tcp()))
    path = write(tmp_path / "x.pcapng", table({}, {"data": frame, "link_type": 113}), ethernet=False)
    rows, reader = read(path)
    assert [i.link_type for i in reader.interfaces] == [101, 113]
    assert rows[1]["data"] == frame


def test_large_and_empty_frames(tmp_path: Path) -> None:
    big = frames.ipv4(bytes(300_000), length=0)
    rows, _ = read(
        write(tmp_path / "x.pcapng", table({"data": b""}, {"data": big}, {"data": None, "orig_len": 60}))
    )
    assert [len(row["data"]) for row in rows] == [14, 262144, 14]
    assert [row["orig_len"] for row in rows] == [14, 300_034, 74]
    assert len(tshark.fields(tmp_path / "x.pcapng", "frame.number")) == 3


def test_many_batches(tmp_path: Path) -> None:
    data = [frames.ipv4(frames.udp(bytes(i % 1400)), 17) for i in range(20_000)]
    rows = table(
        *({"data": d, "pid": i % 300, "comm": f"c{i % 7}", "direction": "in"} for i, d in enumerate(data))
    )
    found, reader = read(
        write(tmp_path / "x.pcapng", rows.slice(0, 7), rows.slice(7, 13_000), rows.slice(13_007))
    )
    assert [row["data"][14:] for row in found] == data
    assert [row["pid"] for row in found] == [i % 300 for i in range(20_000)]
    assert len(reader.processes) == len({(i % 300, i % 7) for i in range(20_000)})


def test_an_empty_capture_has_an_interface(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcapng")
    assert tshark.fields(path, "frame.number") == []
    assert tshark.run("tcpdump", "-n", "-r", str(path)) == ("", "")


@pytest.mark.parametrize(
    "row",
    [
        {**NONE, "pid": 1, "tid": 2, "comm": "a", "direction": "out"},
        {**NONE, "pid": 1, "comm": "Web Content", "pod": "p", "namespace": "n"},
        {**NONE, "pid": 1, "container_id": "0123456789ab", "pod": "p", "direction": "in"},
    ],
)
def test_compact_comments_can_be_taken_apart(row: dict[str, Any]) -> None:
    found, rest = split_comment(compact_comment(row) + "\nother")
    assert rest == "other"
    expected = {
        "pid": row["pid"] and str(row["pid"]),
        "tid": row["tid"] and str(row["tid"]),
        "comm": row["comm"],
    }
    expected |= {"ctr": row["container_id"], "pod": row["pod"], "namespace": row["namespace"]}
    assert found == expected


def test_comments_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcapng", PROCESSES, comments=False)
    assert tshark.fields(path, "frame.comment")[0] == ("",)
    assert read(path)[0][0]["pid"] == 501


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with PcapngWriter(tmp_path / "x.pcapng", {}) as writer:
            writer.write(PROCESSES)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert os.listdir(tmp_path) == []
    with pytest.raises(FormatError, match="cannot write /dev/full"):
        write(Path("/dev/full"), PROCESSES)


def test_interfaces_of_one_name_in_two_network_namespaces_stay_apart(tmp_path: Path) -> None:
    """Each namespace has a `lo` with index 1. Where it is not known it is the first."""
    packets = table({"netns": 2}, {"netns": 1}, {"netns": None}, {"netns": 3})
    known = [Interface("lo", 1, 101, netns=n, description=f"network namespace {n}") for n in (1, 2)]
    path = write(tmp_path / "x.pcapng", packets, interfaces=known)
    with PcapngReader(path) as reader:
        numbers = [number for batch in reader.batches() for number in batch.interfaces.tolist()]
    assert numbers == [1, 0, 0, 2]
    assert [(i.name, i.description) for i in reader.interfaces] == [
        ("lo", "network namespace 1"),
        ("lo", "network namespace 2"),
        ("lo", ""),
    ]
