"""Frames at network devices: those that tcpdump sees there, to the byte."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from recording import STRATOKIT, recording, watches
from workloads import nginx, router, web

import stratokit as sk

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("ip") is None, reason="ip (iproute2) is missing"),
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is missing"),
]
VLAN, QINQ, OWN = 0x8100, 0x88A8, 0x88B5  # the last one is for experiments (IEEE 802)


def ethernet(kind: int, payload: bytes) -> bytes:
    """A broadcast frame that nobody answers."""
    return b"\xff" * 6 + b"\x02\0\0\0\0\x07" + struct.pack("!H", kind) + payload


# What stands between these both have seen whole, whoever began first.
BEGIN, END = ethernet(OWN, b"begin" * 20), ethernet(OWN, b"end" * 20)


def between(frames):
    """Of (length, bytes) those between BEGIN and END."""
    contents = [data for _, data in frames]
    return frames[contents.index(BEGIN) + 1 : contents.index(END)]


def frames_of(path):
    """(length, bytes) of each frame of a pcap file."""
    blob = path.read_bytes()
    order = "<" if blob[0] in (0xD4, 0x4D) else ">"
    found, at = [], 24
    while at < len(blob):
        _, _, cap, orig = struct.unpack_from(order + "IIII", blob, at)
        found.append((orig, blob[at + 16 : at + 16 + cap]))
        at += 16 + cap
    return found


def at_device(rows, name):
    rows = rows.filter(interface=name).sort("ts")
    return list(zip(rows["orig_len"], rows["data"], strict=True))


def by_sender(frames):
    """Frames of each address, protocol and pair of ports in order. Of two senders on two processors nobody
    can say who was first: the capturing programs are told of one frame after the other, each on its own.
    """
    found = {}
    for size, data in frames:
        found.setdefault((data[6:14], data[26:38]), []).append((size, data))
    return found


def test_every_device_of_two_namespaces_as_tcpdump_sees_it(tmp_path):
    """TCP in long frames, ICMP, fragments, ARP, neighbour discovery, VLAN tags: forwarded, sent, received."""
    odd = [
        ethernet(VLAN, struct.pack("!HH", 0x2007, OWN) + bytes(range(60))),
        ethernet(QINQ, struct.pack("!HHHH", 3, VLAN, 0xE004, OWN) + b"inner" * 20),
        ethernet(OWN, b"no tag" * 200),
        ethernet(VLAN, struct.pack("!HH", 9, 0x0800) + b"\x45\0\0\x14" + b"\0" * 50),
        ethernet(0x0002, b"\x42\x42\x03"),
    ]
    with (
        router.router(mtu=9000) as where,
        router.tcpdump(where.middle, where.to_left, tmp_path / "middle.pcap"),
        router.tcpdump(where.left, "eth0", tmp_path / "left.pcap"),
        recording(
            tmp_path / "a.parquet", "-i", "any", "--netns", where.middle, "--netns", where.left
        ) as made,
    ):
        router.send_frames(where.left, "eth0", [BEGIN])
        talk = router.converse(where, messages=7, size=300_000)
        talk6 = router.converse(where, address=router.RIGHT6)
        pinged = router.ping(where, router.RIGHT, 5)
        router.ping(where, router.RIGHT6, 5, size=20_000)
        router.send_frames(where.left, "eth0", odd)
        router.send_frames(where.middle, where.to_left, [*odd, END])
    rows = made.rows("packet")
    for name, file in ((where.to_left, "middle.pcap"), ("eth0", "left.pcap")):
        seen = between(frames_of(tmp_path / file))
        ours = between(at_device(rows, name))
        assert sorted(ours) == sorted(seen)
        assert by_sender(ours) == by_sender(seen)
        assert len(seen) > 150
    assert rows["link_type"].unique().to_list() == [1]
    assert rows["gso_segments"].max() > 1
    assert {7, 3, 9} <= set(rows["vlan"])
    assert {1, 2} <= set(rows["arp_op"])
    assert {135, 136} <= set(rows["icmp_type"])
    links = made.rows("interface").filter(pl.col("interface").is_in([where.to_left, where.to_right, "eth0"]))
    assert set(links["link_type"]) == {1}
    # At the end that has the socket its process is known, on the way no process is.
    port = (pl.col("src_port") == pl.lit(talk.client_port)) | (pl.col("dst_port") == pl.lit(talk.client_port))
    tcp = rows.filter(pl.col("ip_proto") == 6)
    assert set(tcp.filter(port, interface="eth0")["pid"]) == {talk.client_pid}
    assert set(tcp.filter(pl.col("src_port") == talk6.client_port, interface="eth0")["pid"]) == {
        talk6.client_pid
    }
    assert set(rows.filter(interface=where.to_left)["pid"]) == {None}
    echo = rows.filter(pl.col("icmp_type").is_in([0, 8]), interface="eth0")
    assert set(echo["pid"]) == {pinged}
    assert echo.height == 10
    assert not [name for name in made.losses() if name.startswith(("frame", "device", "endpoint"))]
    # Three devices saw each conversation, and it is one, at the device of its process.
    capture = sk.open(made.path)
    for who in (talk, talk6):
        (flow,) = capture.where(f"tcp.port == {who.client_port}").table("flows").collect().rows(named=True)
        assert flow["pid"] == who.client_pid
        assert flow["packets_c2s"] == tcp.filter(src_port=who.client_port, interface="eth0").height
    assert capture.table("tcp").select(pl.col("retransmissions", "out_of_order").sum()).collect().row(0) == (
        0,
        0,
    )
    exported = tmp_path / "a.pcap"
    subprocess.run([*STRATOKIT, "convert", made.path, exported], check=True)
    assert len(frames_of(exported)) == rows.height


def test_loss_of_frames_in_a_tiny_buffer_is_counted_exactly(tmp_path):
    count = 20_011
    flood = [ethernet(OWN, struct.pack("!I", i) + bytes(1000)) for i in range(count)]
    small = ("--buffer", "64K", "--syscalls", "none", "--no-sockets")
    with (
        router.router(quiet=True) as where,
        recording(tmp_path / "a.parquet", *small, "-i", where.to_left, "--netns", where.middle) as made,
    ):
        router.send_frames(where.left, "eth0", flood)
    frames = made.rows("packet")["data"]
    lost = made.losses()["frame_no_space"]
    assert lost > 0
    assert len(frames) + lost == count
    assert set(frames) <= set(flood)
    assert "ring buffer was full" in made.errors


def counters(path: Path) -> dict[str, int]:
    """The last counters in a spool."""
    from stratokit.formats import spool

    return [c.json()["totals"] for c in spool.SpoolReader(path).chunks() if c.type == spool.COUNTERS][-1]


def until(made, counter: str, amount: int) -> None:
    end = time.monotonic() + 20
    while counters(made.spool).get(counter, 0) < amount:
        assert time.monotonic() < end, counters(made.spool)
        time.sleep(0.05)


def test_devices_come_and_go(tmp_path):
    def ip(*words):
        subprocess.run(["ip", "-n", where.left, *words], check=True)

    def send(text, device="dev0"):
        router.send_frames(where.left, device, [ethernet(OWN, text * 20)])

    def device():
        ip("link", "add", "dev0", "type", "veth", "peer", "name", "dev1")
        ip("link", "set", "dev1", "up")
        ip("link", "set", "dev0", "up")

    with router.router(quiet=True) as where:
        device()
        with (
            recording(tmp_path / "a.parquet", "-i", "dev0", "--netns", where.left) as named,
            recording(tmp_path / "b.parquet", "-i", "any", "--netns", where.left) as every,
        ):
            send(b"first")
            ip("link", "set", "dev0", "down")
            until(named, "device_down", 1)
            ip("link", "set", "dev0", "up")
            send(b"second")
            ip("link", "delete", "dev0")
            until(named, "device_gone", 1)
            device()
            until(named, "device_gone", 1)
            time.sleep(0.3)  # the recorder looks every 50 ms
            send(b"third")
            ip("link", "set", "dev1", "name", "dev2")
            send(b"fourth", "dev2")
    texts = [ethernet(OWN, text * 20) for text in (b"first", b"second", b"third", b"fourth")]
    assert list(named.rows("packet").sort("ts")["data"]) == texts
    losses = named.losses()
    assert (losses["device_gone"], losses["device_down"]) == (1, 1)
    assert "went away" in named.errors
    rows = every.rows("packet").sort("ts")
    assert list(rows.filter(direction="out")["data"]) == texts
    assert list(rows.filter(direction="in")["data"]) == texts
    assert set(rows["interface"]) <= {"dev0", "dev1", "dev2"}
    assert rows["interface"].null_count() == 0
    assert not every.losses().get("device_gone")


def test_a_filter_is_decided_at_the_device(tmp_path):
    only = ("--filter", "icmp", "--buffer", "64K")
    with (
        router.router() as where,
        recording(tmp_path / "a.parquet", "-i", "any", "--netns", where.middle, *only) as made,
    ):
        router.converse(where, messages=50, size=300_000)
        router.send_frames(where.left, "eth0", [ethernet(VLAN, struct.pack("!HH", 9, OWN) + b"1" * 50)])
        router.ping(where, router.RIGHT, 5)
    rows = made.rows("packet")
    assert rows.height == 20
    assert set(rows["icmp_type"]) == {0, 8}
    # 30 MB went by, and 64 KB were enough.
    assert not made.losses().get("frame_no_space")


def test_loopback_has_each_frame_once(tmp_path):
    """Two sightings, as of packets at sockets; http by its first bytes, with the process at either end."""
    with nginx.nginx() as site, recording(tmp_path / "a.parquet", "-i", "lo", "--filter", "http") as made:
        asked = web.browse(site, 7)
    capture = sk.open(made.path)
    assert capture.table("http").collect().height == 7
    rows = made.rows("packet")
    assert rows.group_by("frame").agg(pl.col("direction").sort()).select(
        pl.col("direction").list.eval(pl.element().cast(pl.String))
    )["direction"].unique().to_list() == [["in", "out"]]
    flows = capture.table("flows").collect()
    assert sorted(flows["pid"]) == sorted(request.client_pid for request in asked)
    assert set(flows["server_comm"]) == {"nginx"}
    tcp = capture.table("tcp").collect()
    assert tcp["retransmissions"].sum() == 0


def test_what_cannot_be_is_one_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    for words, said in (
        (("-i", "no0"), "there is no network device no0; there"),
        (("-i", "lo", "--netns", "nowhere"), "there is no network namespace nowhere"),
        (("-i", "lo", "--netns", "4194305"), "there is no process 4194305"),
    ):
        done = subprocess.run(
            [*STRATOKIT, "record", "-o", path, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_a_killed_recorder_lets_go_of_its_devices(tmp_path):
    def taps():
        return Path("/proc/net/packet").read_text().count("\n")

    before, path = taps(), tmp_path / "a.parquet"
    with subprocess.Popen([*STRATOKIT, "record", "-i", "lo", "-i", "lo", "-o", path, "--quiet"]) as process:
        while not watches(path.with_suffix(".spool")):
            assert process.poll() is None
            time.sleep(0.02)
        assert taps() == before + 1
        process.kill()
    assert taps() == before


def test_frames_across_segments(tmp_path):
    """Each datagram is once in each direction in one of the files, and has its process in all of them."""
    path = tmp_path / "a.parquet"
    command = [*STRATOKIT, "record", "-i", "lo", "--rotate-time", "1s", "-o", path]
    count = 0
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(type=socket.SOCK_DGRAM) as receiver,
    ):
        assert process.stderr.readline().startswith("recording until")
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        port, end = receiver.getsockname()[1], time.monotonic() + 60
        while len(list(tmp_path.glob("a-*"))) < 3 and time.monotonic() < end:
            sender.send(b"%d" % count)
            receiver.recv(100)
            count += 1
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    files = [
        pl.read_parquet(file).filter(kind="packet", dst_port=port) for file in tmp_path.glob("a-*.parquet")
    ]
    assert sum(not rows.is_empty() for rows in files) >= 2
    rows = pl.concat(files, how="diagonal")
    for direction in ("out", "in"):
        data = rows.filter(direction=direction)["data"]
        assert sorted(int(frame[42:]) for frame in data) == list(range(count))
    assert set(rows["pid"]) == {os.getpid()}
    assert rows["netns"].n_unique() == 1
