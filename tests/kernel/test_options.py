"""Each option of `record` does what it says."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from recording import recording
from workloads import echo, files, nginx, web

pytestmark = pytest.mark.kernel


def test_snaplen_cuts_packets_and_says_so(tmp_path):
    with echo.echo_server() as server, recording(tmp_path / "a.parquet", "--snaplen", "96") as made:
        talk = echo.converse(server)
    packets = made.rows("packet").filter(pl.col("src_port") == talk.client_port)
    assert packets["cap_len"].max() == 96
    assert packets["orig_len"].max() > 96
    assert packets["data"].bin.size().max() == 96
    assert made.losses()["packet_cut"] > 0
    # Lengths are those of the headers, not of what was kept.
    assert packets.filter(direction="out")["payload_len"].sum() == talk.bytes_each_way


@pytest.mark.parametrize("size", [0, 7, 1000])
def test_io_bytes(tmp_path, size):
    folder = tmp_path / "work"
    folder.mkdir()
    with recording(tmp_path / "a.parquet", "--io-bytes", str(size)) as made:
        did = files.work_on_files(folder)
    written = made.rows("syscall").filter(
        pl.col("pid") == did.pid, pl.col("fd_name").str.starts_with(str(folder)), syscall="write"
    )
    assert written.height == did.writes
    lengths = set(written["data"].bin.size().fill_null(0))
    assert lengths == {min(size, files.PAYLOAD_BYTES)}


def test_only_the_named_calls(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    with recording(tmp_path / "a.parquet", "--syscalls", "openat") as made:
        files.work_on_files(folder)
    assert set(made.rows("syscall")["syscall"]) == {"openat"}


def test_no_calls_but_owners_of_accepted_connections(tmp_path):
    with (
        echo.echo_server(prefork=True) as server,
        recording(tmp_path / "a.parquet", "--syscalls", "none") as made,
    ):
        talk = echo.converse(server)
    assert made.rows("syscall").height == 0
    back = made.rows("packet").filter(pl.col("src_port") == talk.server_port, direction="out")
    assert set(back["pid"]) == {talk.server_pid}


def test_no_calls_but_owners_of_every_connection(tmp_path):
    """A server that accepts many times, with other calls between."""
    with nginx.nginx() as site, recording(tmp_path / "a.parquet", "--syscalls", "none") as made:
        sent = web.browse(site)
    back = made.rows("packet").filter(pl.col("src_port") == site.port, direction="out")
    assert back["dst_port"].n_unique() == len(sent)
    assert set(back["pid"]) <= set(site.worker_pids)


def test_every_call(tmp_path):
    with recording(tmp_path / "a.parquet", "--syscalls", "all", "--", "true") as made:
        made.process.wait(60)  # it ends with the command
    seen = set(made.rows("syscall").filter(comm="true")["syscall"])
    assert {"brk", "mmap", "openat", "close", "exit_group"} <= seen


def test_no_packets_no_sockets(tmp_path):
    with (
        echo.echo_server() as server,
        recording(tmp_path / "a.parquet", "--no-packets", "--no-sockets") as made,
    ):
        echo.converse(server)
    assert made.rows("packet").height == 0
    assert made.rows("socket").filter(pl.col("event") != "snapshot").height == 0
    assert made.rows("syscall").height > 0


SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection = server.accept()[0]
while connection.recv(9):
    connection.send(b"y")
"""
CLIENT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(connection.getsockname()[1], flush=True)
while sys.stdin.readline():
    connection.send(b"x")
    connection.recv(9)
    print(flush=True)
"""


def program(text, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_sockets_older_than_the_recording_have_their_owner(tmp_path):
    """A connection that stands before the recording begins: packets on it still lead to both processes."""
    with program(SERVER) as server:
        port = server.stdout.readline().strip()
        with program(CLIENT, port) as client:
            local = client.stdout.readline().strip()
            with recording(tmp_path / "a.parquet", "--syscalls", "none") as made:
                client.stdin.write("\n")
                client.stdin.flush()
                client.stdout.readline()
            client.stdin.close()
    packets = made.rows("packet").filter(direction="out")
    for source, target, process in ((local, port, client), (port, local, server)):
        sent = packets.filter(pl.col("src_port") == int(source), pl.col("dst_port") == int(target))
        assert set(sent.select("pid", "comm").rows()) == {(process.pid, Path(sys.executable).name[:15])}
