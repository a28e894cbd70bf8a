"""A recording that is told what it may use leaves out what costs most, says so, and counts it."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from recording import STRATOKIT, recording, watches
from workloads import nginx, web
from workloads.certificate import certificate
from workloads.common import find_program

import stratokit as sk

pytestmark = pytest.mark.kernel


def info(path) -> dict:
    done = subprocess.run([*STRATOKIT, "info", path, "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def dd(count: int):
    return ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"]


def all_again(path) -> bool:
    """Every step that the spool tells of was taken back."""
    text = path.read_bytes()
    return text.count(b'"left out"') == text.count(b'"recorded again"') > 0


def test_a_storm_of_calls_is_left_out(tmp_path):
    """The storm is over before the recording is: then calls are watched and recorded again."""
    options = ("--comm", "dd", "--max-cpu", "10%", "--syscalls", "read,write,openat")
    with recording(tmp_path / "a.parquet", *options) as made:
        storm = [subprocess.Popen(dd(10**9), start_new_session=True) for _ in range(4)]
        end = time.monotonic() + 30
        while time.monotonic() < end and b'"system calls"' not in made.spool.read_bytes():
            time.sleep(0.1)
        for process in storm:
            process.kill()
            process.wait()
        end = time.monotonic() + 60
        while time.monotonic() < end and not all_again(made.spool):
            time.sleep(0.3)
        with subprocess.Popen(dd(7)) as after:
            pass
    facts = info(made.path)
    steps = [(step["step"], step["action"]) for step in facts["limits"]]
    assert ("system calls", "left out") in steps
    assert ("system calls", "recorded again") in steps
    first = facts["limits"][0]
    assert first["because"] == "cpu"
    assert first["used"] > first["allowed"] == 0.1
    losses = made.losses()
    assert losses["limit_steps"] == len(steps)
    assert losses["syscall_unwatched_ms"] > 1000
    assert made.rows("syscall").filter(pid=after.pid, fd=1, syscall="write").height == 7
    said = subprocess.run([*STRATOKIT, "info", made.path], capture_output=True, text=True, check=True).stdout
    assert "left out from" in said
    assert "to stay within" in said
    report = subprocess.run([*STRATOKIT, "report", made.path], capture_output=True, text=True, check=True)
    assert "left out from" in report.stdout


def test_busy_calls_that_are_left_out_are_counted(tmp_path):
    """As half of the disk is used: what each call costs the processors is not asked then."""
    count = 500_009
    options = ("--comm", "dd", "--max-disk", "256M", "--syscalls", "read,write,openat")
    with recording(tmp_path / "a.parquet", *options) as made:
        # 144 bytes a call: a little more than half of it, and the same again.
        for _ in range(2):
            with subprocess.Popen(dd(count)) as storm:
                pass
            time.sleep(0.5)
    steps = info(made.path)["limits"]
    assert [(step["step"], step["because"]) for step in steps] == [("busy system calls", "disk")]
    losses = made.losses()
    calls = made.rows("syscall")
    # Every call of the last storm is counted, or a row; what did not fit is counted as well.
    mine = calls.filter(pid=storm.pid, fd=0, syscall="read").height + calls.filter(pid=storm.pid, fd=1).height
    assert losses["syscall_shed"] >= 2 * count - mine - losses.get("syscall_no_space", 0)
    assert mine == 0
    shed = made.rows("loss").filter(counter="syscall_shed")
    assert shed["ts"].min() >= calls["ts"].min()


# Speaks TLS and sends datagrams to a closed port, which the kernel drops, until its stdin is closed.
TALKING = """
import select, socket, ssl, sys
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(*sys.argv[1:3])
client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
to, back = ssl.MemoryBIO(), ssl.MemoryBIO()
near, far = client.wrap_bio(back, to), server.wrap_bio(to, back, server_side=True)
for end in (near, far, near, far):
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        pass
sender = socket.socket(type=socket.SOCK_DGRAM)
said = dropped = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    near.write(bytes(65536))
    for _ in range(4):
        far.read(16384)
    said += 2 * 65536
    for _ in range(20):
        sender.sendto(b"x", ("127.0.0.1", 9))
        dropped += 1
print(said, dropped)
"""


def test_plaintext_and_drops_are_left_out_and_counted(tmp_path):
    options = ("--tls", "--max-cpu", "1%", "--no-packets", "--no-sockets", "--syscalls", "ptrace")
    wanted = (b"plaintext of TLS", b"dropped packets")
    with (
        certificate("kiosk.test") as made_of,
        recording(tmp_path / "a.parquet", *options) as made,
        subprocess.Popen(
            [sys.executable, "-c", TALKING, made_of.cert, made_of.key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as work,
    ):
        end = time.monotonic() + 30
        while time.monotonic() < end and not all(text in made.spool.read_bytes() for text in wanted):
            time.sleep(0.3)
        said, dropped = map(int, work.communicate("")[0].split())
    steps = [(step["step"], step["action"]) for step in info(made.path)["limits"]]
    assert ("plaintext of TLS", "left out") in steps
    assert ("dropped packets", "left out") in steps
    losses = made.losses()
    plaintext = made.rows("plaintext").filter(pl.col("pid") == work.pid)
    assert losses["tls_shed_bytes"] > 0
    recorded = plaintext["data"].bin.size().sum()
    assert said <= recorded + losses["tls_shed_bytes"] + losses.get("tls_cut_bytes", 0)
    gone = sum(losses.get(name, 0) for name in ("drop_shed", "drop_too_many", "drop_no_space"))
    assert losses["drop_shed"] > 0
    assert dropped <= made.rows("drop").height + gone


@pytest.mark.skipif(find_program("nginx") is None, reason="nginx is missing")
def test_payload_goes_as_the_disk_fills(tmp_path):
    """Half of --max-disk is used: packets are headers from then on, and all of them are there."""
    with nginx.nginx() as site:
        options = ("--max-disk", "16M", "--syscalls", "none")
        with recording(tmp_path / "a.parquet", *options) as made:
            end = time.monotonic() + 30
            while time.monotonic() < end and b"packet payload" not in made.spool.read_bytes():
                web.browse(site)
            for _ in range(5):
                web.browse(site)
    steps = info(made.path)["limits"]
    assert steps[0]["step"] == "packet payload"
    assert steps[0]["because"] == "disk"
    packets = made.rows("packet")
    cut = packets.filter(pl.col("cap_len") < pl.col("orig_len"))
    assert cut.height == made.losses()["packet_payload_shed"]
    assert cut["cap_len"].max() == 128
    at = pl.from_epoch(pl.lit(steps[0]["ts"]), time_unit="ns").dt.replace_time_zone("UTC")
    assert packets.filter(
        pl.col("ts") > at + pl.duration(milliseconds=50), pl.col("cap_len") > 128
    ).is_empty()
    # Headers are enough for TCP: no connection has a gap.
    assert sk.open(made.path).table("tcp").collect()["lost_segments"].sum() == 0


def test_the_end_of_the_disk_allowance_is_an_orderly_end(tmp_path):
    path = tmp_path / "a.parquet"
    command = [*STRATOKIT, "record", "-o", path, "--max-disk", "1M", "--whole-host", "--", *dd(300_000)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--max-disk allows: the recording ended before its time" in done.stderr
    facts = info(path)
    assert facts["ended"] == "--max-disk reached"
    assert facts["losses"]["disk_full_bytes"] > 0
    assert facts["limits"][-1]["step"] == "end of the recording"
    assert pl.read_parquet(path).filter(kind="syscall").height > 1000


def test_memory_within_its_limit(tmp_path):
    with recording(tmp_path / "a.parquet", "--max-memory", "96M", "--buffer", "64M") as made:
        subprocess.run(dd(100_000), check=True)
        time.sleep(1.2)
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{made.process.pid}/status").read_text().splitlines()
        )
        maps = {}
        for fd in range(64):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{made.process.pid}/fdinfo/{fd}").read_text()
                fields = dict(line.split(":", 1) for line in text.splitlines())
                maps |= {fields["map_id"]: int(fields["memlock"])} if "map_id" in fields else {}
    assert int(status["RssAnon"].split()[0]) * 1024 + sum(maps.values()) <= 96 << 20
    facts = info(made.path)
    assert [step["step"] for step in facts["limits"]] == ["a buffer of 32768 KB instead of 65536 KB"]


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--max-cpu", "0%", "is no share of a processor"),
        ("--max-cpu", "much", "is no share of a processor"),
        ("--max-memory", "1M", "--max-memory takes 65M or more"),
        ("--max-disk", "1k", "--max-disk takes 1M or more"),
        ("--min-free", "-1", "is no size"),
    ],
)
def test_limits_out_of_range_are_usage_errors(tmp_path, option, value, sentence):
    command = [*STRATOKIT, "record", "-o", tmp_path / "a.parquet", option, value, "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.replace("│", " ").split())


def test_no_room_from_the_start_is_one_sentence(tmp_path):
    command = [*STRATOKIT, "record", "-o", tmp_path / "a.parquet", "--min-free", "999999G", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--min-free" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_a_slow_disk_is_counted_and_loses_nothing_silently(tmp_path):
    """Each write to the spool takes 0.4 s, while more happens than the small buffer holds."""
    count = 200_003
    slow = ("strace", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=400000")
    path = tmp_path / "a.parquet"
    options = ("--buffer", "1M", "--syscalls", "write", "--no-packets", "--no-sockets")
    with subprocess.Popen(
        [*slow, *STRATOKIT, "record", "-o", path, *options], stderr=subprocess.PIPE
    ) as process:
        end = time.monotonic() + 60
        while not watches(path.with_suffix(".spool")) and time.monotonic() < end:
            time.sleep(0.1)
        with subprocess.Popen(dd(count)) as work:
            pass
        recorder = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        subprocess.run(["kill", f"-{signal.SIGINT.value}", str(recorder)], check=True)
        said = process.communicate(timeout=120)[1].decode()
    rows = pl.read_parquet(path)
    losses = dict(rows.filter(kind="loss").group_by("counter").agg(pl.col("amount").sum()).iter_rows())
    assert losses["disk_slow"] > 1, said
    mine = rows.filter(kind="syscall", pid=work.pid).height
    others = rows.filter(kind="syscall").height - mine
    assert losses["syscall_no_space"] > 0
    assert count <= mine + losses["syscall_no_space"] <= count + others + 1000
    assert "event_missing" not in losses
