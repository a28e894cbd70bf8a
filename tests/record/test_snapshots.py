"""Snapshots of /proc and of sockets tell what is there."""

import os
import socket
import subprocess
import sys

from stratokit.record import cgroups, host, procfs, sockdiag


def test_own_child_and_its_descriptors(tmp_path):
    path = tmp_path / "held open"
    path.touch()
    with (
        path.open() as file,
        subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=file, cwd=tmp_path
        ) as child,
    ):
        seen = procfs.snapshot()
        child.communicate(b"\n")
    row = next(row for row in seen.processes if row["pid"] == child.pid)
    assert row["parent_pid"] == os.getpid()
    assert row["cmdline"].split("\0")[1:3] == ["-c", "input()"]
    assert row["cwd"] == str(tmp_path)
    assert row["uid"] == os.getuid()
    assert (child.pid, 1, str(path)) in seen.descriptors
    assert all(row["pid"] != os.getpid() for row in seen.processes)


def test_comm_with_blanks_and_brackets():
    stat = "7 (a) b (c) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 250 0"
    assert procfs.start_time_ns(stat) == 250 * 10**9 // os.sysconf("SC_CLK_TCK")


def test_sockets_have_cookie_inode_and_addresses():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        rows = sockdiag.snapshot()
        port, inode = server.getsockname()[1], os.fstat(server.fileno()).st_ino
        cookie = int.from_bytes(client.getsockopt(socket.SOL_SOCKET, 57, 8), sys.byteorder)  # SO_COOKIE
        listening = next(row for row in rows if row["inode"] == inode)
        assert (listening["local_ip"], listening["local_port"], listening["state"]) == ("127.0.0.1", port, 10)
        connected = next(row for row in rows if row["socket_cookie"] == cookie)
        assert (connected["remote_port"], connected["state"], connected["protocol"]) == (port, 1, 6)


def test_loopback_is_among_the_interfaces():
    lo = next(row for row in host.interfaces() if row["interface"] == "lo")
    assert "127.0.0.1/8" in lo["addresses"]
    assert lo["mtu"] > 1000


def test_clock_readings_are_close():
    pair = host.clock_pair()
    assert 0 <= pair["spread_ns"] < 10_000_000
    assert pair["boot_ns"] >= pair["monotonic_ns"] - pair["spread_ns"]


def test_cgroup2_root_is_found_in_mounts(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("tmpfs /x tmpfs rw 0 0\nnone /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n")
    assert str(cgroups.cgroup2_root(mounts)) == "/sys/fs/cgroup/uni fied"
    mounts.write_text("tmpfs /x tmpfs rw 0 0\n")
    assert cgroups.cgroup2_root(mounts) is None
