"""`record --filter`: the file holds what matches, exactly; what the kernel leaves out never comes to us."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import polars as pl
import pytest
from recording import recording
from workloads import dns, echo, files, nginx, web

import stratokit as sk

pytestmark = pytest.mark.kernel

CGROUPS = Path("/sys/fs/cgroup/unified" if Path("/sys/fs/cgroup/unified").is_dir() else "/sys/fs/cgroup")
POD_UID = "0a1b2c3d-1111-4222-8333-0123456789ab"


def noise(server):
    """A TCP conversation and a datagram that match no filter here."""
    with socket.create_connection(("127.0.0.1", server.port)) as talk:
        talk.send(b"noise-in-a-stream")
        talk.recv(100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.sendto(b"noise-in-a-datagram", there.getsockname())


@contextlib.contextmanager
def filtered(tmp_path, *options):
    """Record with noise beside; none of it may come as far as the spool."""
    with echo.echo_server() as server, recording(tmp_path / "a.parquet", *options) as made:
        noise(server)
        yield made
        noise(server)
        os.link(made.spool, tmp_path / "kept.spool")
        made.stop()
    assert b"noise-in-a" not in (tmp_path / "kept.spool").read_bytes()


@pytest.fixture
def pod():
    """A pod's cgroup, and what kubelet leaves of it; made for a test on a machine without kubelet."""
    logs = Path("/var/log/pods")
    if logs.exists():
        pytest.skip("this machine has pods of its own")
    top = CGROUPS / f"kubepods-{uuid.uuid4()}"
    group = top / f"pod{POD_UID}" / ("1" * 64)
    (logs / f"shop_my-app-7d9f8b6c5d-x2x4z_{POD_UID}" / "app").mkdir(parents=True)
    group.mkdir(parents=True)
    yield group
    shutil.rmtree(logs)
    for folder, _, _ in os.walk(top, topdown=False):
        os.rmdir(folder)


@contextlib.contextmanager
def started_in(group):
    """What is started in the block runs in this cgroup; sockets stay where they were made."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (CGROUPS / "cgroup.procs").write_text(str(os.getpid()))


def test_http_of_a_pod(tmp_path, pod):
    """Scene one: of the pod's traffic the HTTP, with its latency at the end; nothing of another server."""
    with contextlib.ExitStack() as stack:
        with started_in(pod):
            site, plain = (stack.enter_context(made()) for made in (nginx.nginx, echo.echo_server))
        other = stack.enter_context(nginx.nginx())
        made = stack.enter_context(filtered(tmp_path, "--pod", "my-app", "--filter", "http"))
        sent = web.browse(site) + web.browse_kept_alive(site)
        web.browse(other)
        noise(plain)
    rows = sk.open(made.path).table("http").collect().sort("ts_request")
    assert rows.select("method", "path", "status").rows() == [(r.method, r.path, r.status) for r in sent]
    packets = made.rows("packet")
    assert set(packets.filter(direction="in")["dst_port"]) == {site.port}
    assert set(packets["pod"]) == {"my-app-7d9f8b6c5d-x2x4z"}
    assert set(made.rows("socket")["src_port"]) == {site.port}
    assert packets["frame"].unique().sort().to_list() == list(range(1, packets["frame"].n_unique() + 1))
    assert made.rows("syscall").is_empty()
    assert set(made.rows("process")["comm"]) == {"nginx"}
    # The report of what was asked for, and no other.
    assert "HTTP" in made.output
    assert "/index.html" in made.output
    assert "Conversations" not in made.output


def test_failing_dns(tmp_path):
    """Scene two: names that failed, by resolver."""
    with (
        dns.dnsmasq() as resolver,
        dns.failing_server() as broken,
        filtered(tmp_path, "--filter", "dns", "--dns-errors-only") as made,
    ):
        asked = dns.look_up(resolver) + dns.look_up_broken(broken)
    failed = [q for q in asked if q.rcode != 0]
    assert 0 < len(failed) < len(asked)
    rows = sk.open(made.path).table("dns").collect().sort("ts_query")
    assert rows.select("qname", "rcode", "server_port").rows() == [
        (q.qname, q.rcode, q.server_port) for q in failed
    ]
    assert rows["pid"].to_list() == [q.client_pid for q in failed]
    assert "DNS errors" in made.output
    assert str(broken.port) in made.output
    assert "NXDOMAIN" in made.output


def test_handshakes(tmp_path):
    """Scene three: SYNs alone, and how long handshakes took."""
    with (
        nginx.nginx() as site,
        echo.echo_server() as server,
        recording(tmp_path / "a.parquet", "--filter", "tcp.flags.syn==1", "--latency") as made,
    ):
        sent = web.browse(site)
        noise(server)
    packets = made.rows("packet")
    here = packets.filter((pl.col("src_port") == site.port) | (pl.col("dst_port") == site.port))
    # A SYN and a SYN-ACK for each connection, both seen out and in.
    assert here.height == 4 * len(sent)
    assert here["frame"].n_unique() == 2 * len(sent)
    assert packets.filter(pl.col("tcp_flags") & 2 == 0).is_empty()
    capture = sk.open(made.path)
    flows = capture.table("flows").filter(pl.col("server_port") == site.port).select("flow_id")
    table = capture.table("tcp").join(flows, on="flow_id").collect()
    assert table.height == len(sent)
    assert table["syn_rtt_ns"].min() > 0
    assert "TCP handshakes" in made.output
    line = next(line for line in made.output.splitlines() if str(site.port) in line)
    assert str(len(sent)) in line.split()


def test_one_address_and_port(tmp_path):
    with nginx.nginx() as site:
        text = f"ip.addr == 127.0.0.0/8 and tcp.port == {site.port}"
        with filtered(tmp_path, "--filter", text) as made:
            sent = web.browse(site)
    rows = sk.open(made.path).table("http").collect()
    assert rows.height == len(sent)
    assert set(rows["server_port"]) == {site.port}


def test_failed_calls_by_path(tmp_path):
    """The name of a file is put together when converting; that the call failed, the kernel knows."""
    folder = tmp_path / "work"
    folder.mkdir()
    text = f'evt.type == openat and evt.res == ENOENT and fd.name contains "{folder}"'
    with recording(tmp_path / "a.parquet", "--filter", text) as made:
        did = files.work_on_files(folder)
    rows = made.rows("syscall")
    assert rows.sort("ts")["path"].to_list() == did.missing
    assert made.rows("packet").is_empty()
    assert set(made.rows("process")["pid"]) == {did.pid}


def test_reads_of_one_file_by_its_name(tmp_path):
    """Of the calls that open files nothing is in the file, but their names are."""
    folder = tmp_path / "work"
    folder.mkdir()
    with recording(
        tmp_path / "a.parquet", "--filter", f'evt.type == read and fd.name contains "{folder}"'
    ) as made:
        did = files.work_on_files(folder)
    rows = made.rows("syscall")
    # The compiler of the workload may read in that folder too.
    assert rows.filter(pid=did.pid).height == did.reads
    assert set(rows["syscall"]) == {"read"}


SLEEPER = "import time\nfor ms in (60, 5) * 7: time.sleep(ms / 1000)"


def test_calls_over_a_duration(tmp_path):
    text = 'evt.latency > 50ms and evt.type contains "nanosleep"'
    with recording(tmp_path / "a.parquet", "--filter", text, "--syscalls", "all") as made:
        process = subprocess.Popen([sys.executable, "-c", SLEEPER])
        process.wait()
    rows = made.rows("syscall")
    assert rows.filter(pid=process.pid).height == 7
    assert rows["duration_ns"].min() > 50_000_000


def test_a_wrong_filter_is_told_before_anything_begins(tmp_path):
    argv = [
        sys.executable,
        "-m",
        "stratokit",
        "record",
        "-o",
        tmp_path / "a.parquet",
        "--filter",
        "tcp.prot == 1",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the nearest is tcp.port" in done.stderr
    assert "^^^^" in done.stderr
    assert list(tmp_path.iterdir()) == []
