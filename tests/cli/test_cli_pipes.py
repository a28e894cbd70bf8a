"""Captures out of pipes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "mixed.parquet"
STRATOKIT = (sys.executable, "-m", "stratokit")
# Writes most of what it is given; the rest when it is interrupted, as tcpdump does.
WRITER = """
import pathlib, signal, sys
data = pathlib.Path(sys.argv[1]).read_bytes()
def rest(*_):
    sys.stdout.buffer.write(data[-100:])
    sys.stdout.buffer.flush()
    sys.exit()
signal.signal(signal.SIGINT, rest)
sys.stdout.buffer.write(data[:-100])
sys.stdout.buffer.flush()
pathlib.Path(sys.argv[2]).touch()
signal.pause()
"""


@pytest.fixture(scope="module")
def pcap(tmp_path_factory):
    from stratokit.engine.convert import convert_files

    path = tmp_path_factory.mktemp("pipes") / "a.pcap"
    convert_files([SAMPLE], path)
    return path


def said(*command, **options) -> str:
    done = subprocess.run([*STRATOKIT, *command], capture_output=True, text=False, check=True, **options)
    return done.stdout.decode()


def without_name(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("file")]


def test_what_comes_through_a_pipe_is_read_as_the_file(pcap, tmp_path):
    expected = without_name(said("info", pcap))
    temporary = {**os.environ, "TMPDIR": str(tmp_path)}
    for data in (pcap.read_bytes(), gzip.compress(pcap.read_bytes())):
        assert without_name(said("info", "-", input=data, env=temporary)) == expected
    flows = ("table", "flows", "--format", "csv")
    assert said(*flows, "-", input=pcap.read_bytes(), env=temporary) == said(*flows, pcap)
    said("convert", "-", tmp_path / "b.pcap", input=pcap.read_bytes(), env=temporary)
    assert (tmp_path / "b.pcap").read_bytes() == pcap.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["b.pcap"]  # nothing else is left


def test_a_file_as_standard_input_is_not_copied(pcap):
    with pcap.open("rb") as file:
        assert "/dev/stdin" in said("info", "-", stdin=file)


def test_a_named_pipe(pcap, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([*STRATOKIT, "info", pipe], stdout=subprocess.PIPE, text=True) as reader:
        pipe.write_bytes(pcap.read_bytes())
        assert "554 packet" in reader.communicate()[0]


def test_interrupted_it_reads_what_still_comes(pcap, tmp_path):
    sign = tmp_path / "written"
    line = f'"{sys.executable}" -c "$0" "$1" "$2" | exec "{sys.executable}" -m stratokit info -'
    command = ["bash", "-c", line, WRITER, pcap, sign]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as group:
        while not sign.exists():
            time.sleep(0.05)
        os.killpg(group.pid, signal.SIGINT)
        assert "554 packet" in group.communicate()[0]


def failed(command, **options) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False, **options)
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr


def test_an_empty_pipe_and_what_is_no_capture_are_said():
    assert failed([*STRATOKIT, "info", "-"], input=b"") == b"stratokit: /dev/stdin is empty\n"
    assert b"/dev/stdin is of no known format" in failed(
        [*STRATOKIT, "table", "packets", "-"], input=b"hello"
    )


def test_two_pipes_are_two_captures(pcap):
    line = f'"{sys.executable}" -m stratokit info --json <(cat {pcap}) <(cat {pcap}) - -'
    done = subprocess.run(["bash", "-c", line], input=pcap.read_bytes(), capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert found["rows"]["packet"] == 3 * 554
    assert [path["path"].rpartition("/")[0] for path in found["files"]] == ["/dev/fd", "/dev/fd", "/dev"]


def test_a_socket_is_read_as_a_pipe(pcap):
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        subprocess.Popen([*STRATOKIT, "info", "-"], stdin=theirs, stdout=subprocess.PIPE) as it,
    ):
        ours.sendall(pcap.read_bytes())
        ours.shutdown(socket.SHUT_WR)
        assert b"554 packet" in it.communicate()[0]


def test_no_room_for_what_a_pipe_brings_is_said_in_a_sentence(tmp_path):
    """Also of one who never stops writing."""
    line = f'ulimit -f 100; yes | exec "{sys.executable}" -m stratokit convert - {tmp_path}/b.parquet'
    said = failed(["bash", "-c", line], env={**os.environ, "TMPDIR": str(tmp_path)})
    assert said == b"stratokit: cannot keep what /dev/stdin brings in a temporary file: File too large\n"
    assert not list(tmp_path.iterdir())


def test_killed_it_leaves_nothing(pcap, tmp_path):
    temporary = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*STRATOKIT, "info", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=temporary, bufsize=0) as reader:
        for _ in range(3):
            reader.stdin.write(pcap.read_bytes())  # more than a pipe holds: it reads by now
        reader.kill()
        reader.wait()
    assert not list(tmp_path.iterdir())
