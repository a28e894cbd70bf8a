"""Snapshots of /proc and of sockets tell what is there."""

import os
import socket
import subprocess
import sys
import time

import pytest

from stratokit.record import cgroups, host, open_calls, procfs, rtnetlink, sockdiag


def test_own_child_and_its_descriptors(tmp_path):
    path = tmp_path / "held open"
    path.touch()
    with (
        path.open() as file,
        subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=file, cwd=tmp_path
        ) as child,
    ):
        seen = procfs.snapshot(os.getpid())
        child.communicate(b"\n")
    row = next(row for row in seen.processes if row["pid"] == child.pid)
    assert row["parent_pid"] == os.getpid()
    assert row["cmdline"].split("\0")[1:3] == ["-c", "input()"]
    assert row["cwd"] == str(tmp_path)
    assert row["uid"] == os.getuid()
    assert (child.pid, 1, str(path), path.stat().st_ino) in seen.descriptors
    pipe = next(row for row in seen.descriptors if row[:2] == (child.pid, 0))
    assert pipe[2] == f"pipe:[{pipe[3]}]"
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
    lo = next(row for row in rtnetlink.interfaces() if row["interface"] == "lo")
    assert "127.0.0.1/8" in lo["addresses"]
    assert lo["mtu"] > 1000
    assert lo["ifindex"] == 1


def test_names_that_are_no_utf8_are_escaped(tmp_path):
    """JSON holds the snapshot, and text with lone surrogates cannot be stored in a capture."""
    path = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=path) as child:
        seen = procfs.snapshot(os.getpid())
        child.communicate(b"\n")
    row = next(row for row in seen.processes if row["pid"] == child.pid)
    assert row["cwd"] == f"{tmp_path}/caf\\xe9"


def test_a_thread_in_a_call_and_what_it_waits_for():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        found: list[open_calls.Waiting] = []
        end = time.monotonic() + 10
        while not found and time.monotonic() < end:
            found = [t for t in open_calls.waiting() if t.pid == child.pid and t.link]
        rows = {
            since: open_calls.rows(found, lambda _, since=since: since, list)
            for since in (0, 1, found[0].at_ns, found[0].at_ns + 1)
        }
        child.communicate()
    (thread,) = found
    assert (thread.comm, thread.syscall, thread.fd, thread.args[0]) == ("cat", 0, 0, 0)
    assert thread.link.startswith("pipe:[")
    # 1: in no recorded call; later than seen: in another call than that.
    assert [len(rows[since]) for since in sorted(rows)] == [1, 0, 1, 0]


def test_own_number_in_another_pid_namespace():
    if os.geteuid() != 0:
        pytest.skip("a pid namespace needs root")
    code = "from stratokit.record import pidns; pid = pidns.kernel_pid(); print(pid, pidns.proc_agrees(pid))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split()[1] == "True"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    pid, agrees = subprocess.check_output(command, text=True).split()
    assert (int(pid) > 1, agrees) == (True, "False")


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
