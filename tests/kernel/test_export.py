"""The exported pcapng beside what tcpdump recorded at the same time: same packets, bytes and times."""

import contextlib
import shutil
import signal
import subprocess

import pytest
from recording import STRATOKIT, recording
from workloads import dns, echo, nginx, web

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is missing"),
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is missing"),
]
# tcpdump's clock is read at the device, ours a few microseconds earlier at the IP layer.
NEAR_NS = 2_000_000


@contextlib.contextmanager
def tcpdump(path, expression):
    # -B: room for bursts, or tcpdump itself loses packets.
    command = ["tcpdump", "-i", "lo", "-w", path, "-Z", "root", "-B", "65536", "--time-stamp-precision=nano"]
    with subprocess.Popen([*command, "-U", expression], stderr=subprocess.PIPE, text=True) as process:
        assert "listening" in process.stderr.readline()
        yield
        subprocess.run(["sleep", "1"], check=True)  # packets wait in the kernel for up to a second
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert "0 packets dropped by kernel" in said


def packets(path, expression=""):
    """(time in ns, frame length, captured bytes) of each frame, and what tshark complained about."""
    fields = [
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "tcp.seq_raw",
        "tcp.ack_raw",
        "udp.checksum",
        "ip.id",
    ]
    arguments = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-n", "-r", path, "-Y", expression, "-T", "fields", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    complaints = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    rows = []
    for line in done.stdout.splitlines():
        time, *rest = line.split("\t")
        seconds, _, fraction = time.partition(".")
        rows.append((int(seconds) * 10**9 + int(fraction.ljust(9, "0")), tuple(rest)))
    return rows, complaints


def frames_hex(path, expression):
    command = ["tcpdump", "-n", "-r", path, "-t", "-xx", expression]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    frames = []
    for line in text.splitlines():
        if line.startswith("\t"):
            frames[-1] += "".join(line.split(":", 1)[1].split())
        else:
            frames.append("")
    return frames


def test_export_equals_tcpdump(tmp_path):
    with (
        nginx.nginx() as site,
        dns.dnsmasq() as resolver,
        echo.echo_server() as server,
        tcpdump(tmp_path / "t.pcap", f"port {site.port} or port {resolver.port} or port {server.port}"),
        recording(tmp_path / "a.parquet") as made,
    ):
        web.browse(site)
        dns.look_up(resolver)
        echo.converse(server)
    out = tmp_path / "a.pcapng"
    subprocess.run([*STRATOKIT, "convert", made.path, out], check=True)
    ours_filter = f"tcp.port in {{{site.port}, {server.port}}} || udp.port == {resolver.port}"
    ours, complaints = packets(out, ours_filter)
    theirs, _ = packets(tmp_path / "t.pcap")
    assert complaints == []
    assert len(ours) == len(theirs) > 100
    # Two packets within a microsecond may be seen in either order: compare as sorted sets, times by rank.
    assert sorted(row for _, row in ours) == sorted(row for _, row in theirs)
    by_content: dict[tuple, list[int]] = {}
    for time, row in sorted(theirs):
        by_content.setdefault(row, []).append(time)
    for time, row in sorted(ours):
        assert abs(time - by_content[row].pop(0)) < NEAR_NS
    expression = f"port {site.port} or port {resolver.port} or port {server.port}"
    assert sorted(frames_hex(out, expression)) == sorted(frames_hex(tmp_path / "t.pcap", expression))


def test_processes_stand_with_their_packets(tmp_path):
    with echo.echo_server() as server, recording(tmp_path / "a.parquet") as made:
        talk = echo.converse(server)
    out = tmp_path / "a.pcapng"
    subprocess.run([*STRATOKIT, "convert", made.path, out], check=True)
    command = ["tshark", "-n", "-r", out, "-Y", f"tcp.srcport == {talk.client_port}", "-T", "fields", "-e"]
    done = subprocess.run([*command, "frame.comment"], capture_output=True, text=True, check=True)
    comments = done.stdout.splitlines()
    assert comments
    assert all(f"pid={talk.client_pid} " in line and f"comm={talk.client_comm} " in line for line in comments)
