"""A segment between two local sockets: its payload is recorded once and stands in both rows."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import polars as pl
import pytest
from recording import STRATOKIT, recording

from stratokit.engine.ingest import ingest
from stratokit.formats import events, spool
from stratokit.record.opening import layouts

pytestmark = pytest.mark.kernel
ADDRESSES = ("127.0.0.1", "::1")
BYTES = (
    60_007  # in segments that are longer than the device takes, and shorter than the longest that is recorded
)


def transfer(address):
    """Known bytes both ways through one connection; returns (client's port, what it sent, what it got)."""
    sent = [os.urandom(BYTES), os.urandom(BYTES // 3)]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def serve():
        with listener.accept()[0] as peer:
            left = BYTES
            while left:
                left -= len(peer.recv(left))
            peer.sendall(sent[1])

    with socket.create_server((address, 0), family=family) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(listener.getsockname()[:2]) as peer:
            port = peer.getsockname()[1]
            peer.sendall(sent[0])
            left = len(sent[1])
            while left:
                left -= len(peer.recv(left))
        thread.join()
    return port, *sent


def stream(rows):
    """The bytes of one direction, by sequence number; segments that came twice are equal."""
    first = rows.filter(pl.col("tcp_flags") & 2 != 0)["tcp_seq"][0] + 1
    made = bytearray()
    for seq, data, size in (
        rows.filter(pl.col("payload_len") > 0).select("tcp_seq", "data", "payload_len").rows()
    ):
        at = (seq - first) & 0xFFFFFFFF
        made[at : at + size] = data[len(data) - size :]
    return bytes(made)


def left_out(path):
    """Records of a spool whose payload stands in another one, and bytes of all packets."""
    known = events.layouts({"events": layouts()})
    chunks = (chunk for chunk in spool.SpoolReader(path).chunks() if chunk.type == spool.EVENTS)
    found = [events.split(chunk.payload, known)[0].get("packet") for chunk in chunks]
    fixed = [batch.fixed for batch in found if batch is not None]
    return sum(int((f["sent_ns"] != 0).sum()) for f in fixed), sum(int(f["cap_len"].sum()) for f in fixed)


def test_both_rows_have_the_payload(tmp_path):
    copy = tmp_path / "copy.spool"
    with recording(tmp_path / "a.parquet", "--syscalls", "none") as made:
        talks = [transfer(address) for address in ADDRESSES]
        end = time.monotonic() + 20
        while not copy.exists() or left_out(copy)[0] < 2 * len(ADDRESSES):
            assert time.monotonic() < end, "no payload was left out"
            time.sleep(0.1)
            shutil.copy(made.spool, copy)
    # A recorder that was killed leaves such a spool.
    ingest(spool.SpoolChain([copy]), tmp_path / "b.parquet")
    for path in (made.path, tmp_path / "b.parquet"):
        packets = pl.read_parquet(path).filter(kind="packet", ip_proto=6).sort("ts")
        for port, there, back in talks:
            for ends, expected in ((pl.col("src_port") == port, there), (pl.col("dst_port") == port, back)):
                for direction in ("out", "in"):
                    rows = packets.filter(ends, direction=direction)
                    assert rows["cap_len"].to_list() == rows["orig_len"].to_list()
                    assert stream(rows) == expected
                # Both rows are one frame.
                frames = packets.filter(ends).group_by("frame").agg(pl.col("direction").sort())
                assert frames["direction"].to_list() == [["in", "out"]] * frames.height
    assert "packet_payload_missing" not in made.losses()
    moved = len(ADDRESSES) * (BYTES + BYTES // 3)
    assert moved < left_out(copy)[1] < 1.5 * moved


@contextlib.contextmanager
def rewriting_namespace():
    """A network namespace in which the headers of what arrives are rewritten in the kernel's own buffer."""
    name = f"rewriting-{os.getpid()}"
    rules = "add table inet t; add chain inet t c { type filter hook input priority 0; }; "
    rules += "add rule inet t c ip dscp set cs3; add rule inet t c ip6 dscp set cs3"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "netns", "exec", name, "nft", rules], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft (nftables) is missing")
@pytest.mark.skipif(shutil.which("ip") is None, reason="ip (iproute2) is missing")
def test_what_is_rewritten_on_the_way_has_its_own_payload(tmp_path):
    code = f"import {__name__} as test; [test.transfer(address) for address in test.ADDRESSES]"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with rewriting_namespace() as name, recording(tmp_path / "a.parquet", "--syscalls", "none") as made:
        command = ["ip", "netns", "exec", name, sys.executable, "-c", code]
        subprocess.run(command, check=True, env=environment)
    assert "packet_payload_missing" not in made.losses()
    came = made.rows("packet").filter(pl.col("payload_len") > 0, direction="in", ip_proto=6)
    begins = pl.col("data").bin.slice(0, 2).bin.encode("hex")
    rewritten = came.filter((begins == "4560") | begins.str.starts_with("66"))  # traffic class 0x60
    assert set(rewritten["ip_version"]) == {4, 6}
    assert rewritten.height >= 4
    assert rewritten["cap_len"].to_list() == rewritten["orig_len"].to_list()


def test_with_a_snap_length_and_in_segments(tmp_path):
    command = [*STRATOKIT, "record", "-o", tmp_path / "a.parquet", "--syscalls", "none", "--snaplen", "300"]
    command += ["--rotate-time", "1s"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recorder:
        assert "recording until" in recorder.stderr.readline()
        end, talks = time.monotonic() + 2.5, []
        while time.monotonic() < end:
            talks.append(transfer(ADDRESSES[0]))
        recorder.send_signal(signal.SIGINT)
        assert "Traceback" not in recorder.communicate(timeout=60)[1]
    rows = pl.concat([pl.read_parquet(path) for path in sorted(tmp_path.glob("*.parquet"))], how="diagonal")
    assert "packet_payload_missing" not in rows["counter"]
    ports = [port for port, _, _ in talks]
    packets = rows.filter(pl.col("src_port").is_in(ports) | pl.col("dst_port").is_in(ports), kind="packet")
    long = packets.filter(pl.col("orig_len") > 300)
    assert long.filter(direction="in").height >= 2 * len(talks)
    assert set(long["cap_len"]) == {300}
    # What came in is what went out.
    by_way = [long.filter(direction=way)["data"].bin.slice(52).sort().to_list() for way in ("out", "in")]
    assert by_way[0] == by_way[1]
