"""Recordings in segments: nothing is lost or doubled at a border, each file stands alone, nothing grows."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from recording import STRATOKIT

import stratokit as sk
from stratokit.formats import spool

pytestmark = pytest.mark.kernel

# A steady number of calls a second, each with its number: what is lost or doubled shows.
COUNTING = """
import os, signal, sys, time
fd = os.open("/dev/null", os.O_WRONLY)
kept = open(sys.argv[2])
os.kill(os.getpid(), signal.SIGSTOP)  # its descriptors are to be older than the recording
for i in range(int(sys.argv[1])):
    os.write(fd, b"%d" % i)
    if i % 100 == 0:
        time.sleep(0.001)
    if i % 1000 == 0:
        os.pread(kept.fileno(), 1, 0)
"""


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def anonymous_bytes(pid: int) -> int:
    """Memory that is in no file: the recorder's own."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) << 10


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def watching(process: subprocess.Popen, pattern: str, folder: Path) -> None:
    """Wait until the first segment has all that a recording begins with."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        for path in folder.glob(pattern):
            chunks = spool.SpoolReader(path).chunks() if path.stat().st_size > 64 else ()
            if any(c.type == spool.TABLE and c.json()["table"] == "cgroups" for c in chunks):
                return
        time.sleep(0.02)
    raise AssertionError("the recorder did not start")


def rows(paths, kind: str) -> pl.DataFrame:
    return pl.concat(
        [pl.scan_parquet(path).filter(pl.col("kind") == kind) for path in paths], how="diagonal"
    ).collect()


def test_rotation_loses_and_doubles_nothing(tmp_path):
    count = 200_003
    old = tmp_path / "older-than-the-recording"
    old.write_text("x")
    command = [*STRATOKIT, "record", "-o", tmp_path / "a.parquet", "--syscalls", "write,pread64"]
    command += ["--rotate-time", "1s"]
    work = subprocess.Popen([sys.executable, "-c", COUNTING, str(count), old])
    os.waitid(os.P_PID, work.pid, os.WSTOPPED | os.WNOWAIT)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recorder:
        watching(recorder, "*.spool", tmp_path)
        work.send_signal(signal.SIGCONT)
        sizes, open_files = [], []
        sent = 0
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as server:
                while work.poll() is None:
                    time.sleep(0.1)
                    client.sendall(b"over the border")
                    sent += len(server.recv(64))
                    sizes.append(resident_bytes(recorder.pid))
                    open_files.append(descriptors(recorder.pid))
        recorder.send_signal(signal.SIGINT)
        errors = recorder.communicate()[1]
    assert recorder.returncode == 0, errors
    assert not list(tmp_path.glob("*.spool"))
    paths = sorted(tmp_path.glob("a-*.parquet"))
    assert len(paths) >= 3
    assert paths == sorted(paths, key=lambda path: path.stat().st_mtime_ns)

    calls = rows(paths, "syscall").filter(pl.col("pid") == work.pid)
    written = calls.filter(pl.col("syscall") == "write")["data"].cast(pl.String).cast(pl.Int64)
    assert written.sort().to_list() == list(range(count))
    # Which file was read, by a descriptor that is older than all segments, is known in each of them.
    read = calls.filter(pl.col("syscall") == "pread64")
    assert set(read["fd_name"]) == {str(old)}
    # A last segment may begin between the end of the work and the signal that ends the recording.
    at_work = [path for path in paths if work.pid in rows([path], "syscall")["pid"]]
    assert at_work in (paths, paths[:-1])
    for path in at_work:
        named = rows([path], "process").filter(pl.col("pid") == work.pid)
        assert named["event"][0] == "snapshot"
        assert COUNTING.strip().splitlines()[0] in named["cmdline"][0]
    starts = rows(paths, "syscall").filter(pl.col("pid") == work.pid)["process_start"]
    assert starts.n_unique() == 1
    losses = rows(paths, "loss")
    assert not set(losses["counter"]) & {"event_missing", "syscall_no_space", "segment_missing"}
    # The process that converts is not recorded.
    assert not rows(paths, "process")["cmdline"].str.contains("convert_jobs").any()

    # Together they are one capture: a connection that lasted through all segments is one.
    capture = sk.open(tmp_path)
    flows = capture.where(f"tcp.port == {port}").table("flows").collect()
    assert flows["bytes_c2s"].len() == 1
    assert flows["pid"].to_list() == flows["server_pid"].to_list() == [os.getpid()]
    tcp = capture.where(f"tcp.port == {port}").table("tcp").collect()
    assert tcp["conn_state"].to_list() == ["SF"]
    assert tcp["bytes_missing"].fill_null(0).to_list() == [0]
    payload = (
        capture.rows("packet").filter(pl.col("dst_port") == port, pl.col("direction") == "out").collect()
    )
    assert payload["payload_len"].sum() == sent
    seen = capture.rows("process").filter(pl.col("pid") == work.pid).collect()
    assert seen["event"].to_list() == ["snapshot", "exit"]

    assert max(open_files[2:]) - min(open_files[2:]) <= 6
    assert max(sizes) < 1.2 * min(sizes[2:])


def test_a_day_by_rotation(tmp_path):
    """Many segments: memory, descriptors, files and their size stay within bounds, each opens alone.

    STRATOKIT_SEGMENTS=1440 makes a day of a segment a minute.
    """
    wanted, kept = int(os.environ.get("STRATOKIT_SEGMENTS", "20")), 4
    command = [*STRATOKIT, "record", "-o", tmp_path / "a.parquet", "--syscalls", "write", "--no-packets"]
    # By name, so that a day of this disturbs nobody else on the machine.
    command += ["--comm", "dd", "--rotate-size", "1M", "--rotate-count", str(kept)]
    load = subprocess.Popen(["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "status=none"])
    load.send_signal(signal.SIGSTOP)
    seen: dict[int, Path] = {}
    sizes, own, open_files, files, on_disk = [], [], [], [], []
    try:
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recorder:
            watching(recorder, "*.spool", tmp_path)
            load.send_signal(signal.SIGCONT)
            began = time.monotonic()
            while not seen or max(seen) < wanted:
                assert recorder.poll() is None, recorder.communicate()[1]
                assert time.monotonic() < began + 60 + 10 * wanted
                # A segment at a time, as a host with a segment a minute has it.
                behind = len(list(tmp_path.glob("*.spool"))) > 3
                load.send_signal(signal.SIGSTOP if behind else signal.SIGCONT)
                time.sleep(0.05)
                there = list(tmp_path.glob("a-*"))
                for path in there:
                    if path.suffix == ".parquet" and int(path.name[2:8]) not in seen:
                        seen[int(path.name[2:8])] = path
                        assert opens_alone(path)
                sizes.append(resident_bytes(recorder.pid))
                own.append(anonymous_bytes(recorder.pid))
                open_files.append(descriptors(recorder.pid))
                files.append(sum(path.suffix == ".parquet" for path in there))
                on_disk.append(sum(path.stat().st_size for path in there if path.exists()))
            recorder.send_signal(signal.SIGINT)
            errors = recorder.communicate()[1]
    finally:
        load.kill()
        load.wait()
    assert recorder.returncode == 0, errors
    assert "removed unconverted" not in errors
    assert sorted(seen) == list(range(1, max(seen) + 1))
    assert len(list(tmp_path.glob("*"))) == kept
    assert max(files) <= kept + 1
    assert max(open_files) - min(open_files) <= 8
    later, own = sizes[len(sizes) // 4 :], own[len(own) // 4 :]
    assert max(later) < 1.1 * min(later)
    assert max(own) < 1.1 * min(own)
    # A segment goes on while the next one is made ready, which takes its time on a busy machine.
    assert max(on_disk) < 128 << 20
    found = {"rss_from": min(later), "rss_to": max(later), "anon_from": min(own), "anon_to": max(own)}
    found = {f"{name}_mb": round(size / 1e6, 1) for name, size in (found | {"disk_to": max(on_disk)}).items()}
    print(json.dumps({"segments": len(seen), "files_to": max(files)} | found))


def opens_alone(path: Path) -> bool:
    """Whether the file has rows, its processes, both clocks, and counts; one that is gone already had."""
    try:
        found = pl.read_parquet(path, columns=["kind"])["kind"].value_counts()
    except FileNotFoundError:
        return True
    return {"syscall", "process", "clock", "interface"} <= set(found["kind"])
