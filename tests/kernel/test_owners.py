"""Who uses a socket is found without system calls, and is the same as with them."""

import subprocess
import sys

import polars as pl
import pytest
from recording import recording
from workloads import dns, nginx, sharing, web

pytestmark = pytest.mark.kernel

END = ["ip_proto", "src_ip", "src_port", "dst_ip", "dst_port"]
WHO = ["pid", "tid", "comm"]

# A server that only reads: of two connections one is reset by the client, one is there when all is over.
QUIET = """
import socket, struct, sys
server = socket.create_server(("127.0.0.1", 0))
clients = [socket.create_connection(server.getsockname()) for _ in range(2)]
print(*[client.getsockname()[1] for client in clients], flush=True)
sys.stdin.readline()
pair = [server.accept()[0] for _ in clients]
for client, connection in zip(clients, pair):
    client.send(b"x")
    connection.recv(1)
clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
clients[0].close()
try:
    pair[0].recv(1)
except ConnectionResetError:
    pair[0].close()
print(flush=True)
sys.stdin.readline()
"""


def test_the_same_owners_as_with_system_calls(tmp_path):
    with (
        nginx.nginx(workers=3) as site,
        dns.dnsmasq() as resolver,
        recording(tmp_path / "none.parquet", "--syscalls", "none") as learned,
        recording(tmp_path / "calls.parquet") as told,
    ):
        web.browse(site, 7)
        facts = [sharing.run(*words) for words in (["forked"], ["passed"], ["threads"], ["datagrams", "::1"])]
        dns.dig(resolver, f"api.{dns.ZONE}")
        dns.dig(resolver, f"db.{dns.ZONE}", transport="tcp")
    ports = [site.port, resolver.port, *(fact.server_port for fact in facts)]
    of_ours = pl.col("src_port").is_in(ports) | pl.col("dst_port").is_in(ports)
    both = [made.rows("packet").filter(of_ours) for made in (learned, told)]
    assert all(rows.height > 100 for rows in both)
    assert [rows["pid"].null_count() for rows in both] == [0, 0]
    # Who sent is certain; what comes in before an end was used belongs to the one who used it first.
    out = [rows.filter(direction="out") for rows in both]
    sent = [rows.filter(pl.col("payload_len") > 0).select(*END, "tcp_seq", *WHO) for rows in out]
    assert sent[0].sort(pl.all()).equals(sent[1].sort(pl.all()))
    ends = [rows.select(*END, "pid").unique() for rows in out]
    assert ends[0].join(ends[1], on=ends[0].columns, how="anti", nulls_equal=True).height == 0
    assert learned.rows("syscall").height == 0


def tracepoints(tmp_path, *options):
    """Of a recorder with these options, once for each program there."""
    with recording(tmp_path / "a.parquet", "--syscalls", "none", *options) as made:
        links = subprocess.run(
            ["grep", "-h", "tp_name", "-r", f"/proc/{made.process.pid}/fdinfo"],
            check=False,
            capture_output=True,
            text=True,
        ).stdout
    return [line.split()[1] for line in links.splitlines()]


def test_no_tracepoint_of_system_calls_is_passed(tmp_path):
    """What each call of the host would pay for."""
    found = tracepoints(tmp_path)
    assert "sched_process_exec" in found
    assert not {"sys_enter", "sys_exit"} & set(found)


def test_plaintext_alone_passes_those_that_it_needs(tmp_path):
    found = tracepoints(tmp_path, "--tls", "--no-packets", "--no-sockets")
    assert [found.count(name) for name in ("sys_enter", "sys_exit")] == [1, 1]


def test_who_only_reads_is_known_by_closing_or_holding(tmp_path):
    words = [sys.executable, "-c", QUIET]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        reset, held = map(int, server.stdout.readline().split())
        with recording(tmp_path / "a.parquet", "--syscalls", "none") as made:
            server.stdin.write("\n")
            server.stdin.flush()
            server.stdout.readline()
        server.stdin.close()
    for port in (reset, held):
        came = made.rows("packet").filter(pl.col("src_port") == port, direction="in")
        assert came.height > 0
        assert (port, set(came["pid"])) == (port, {server.pid})
