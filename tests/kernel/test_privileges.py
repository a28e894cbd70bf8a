"""An ordinary user with three capabilities records everything; without them `doctor` says what is missing."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import polars as pl
import pytest
from nobody import NOBODY, ROOT, as_nobody, folder_for_all, python_for_nobody, site_packages
from recording import STRATOKIT, recording
from workloads import echo

from stratokit.record.doctor import DEFAULT

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is missing"),
]


def stratokit_as_nobody(monkeypatch, *capabilities: str) -> tuple[str, ...]:
    python = python_for_nobody()
    monkeypatch.setattr("recording.STRATOKIT", (python, "-m", "stratokit"))
    return as_nobody(*capabilities)


@pytest.fixture
def open_folder():
    with folder_for_all() as folder:
        yield folder


def test_three_capabilities_are_enough(open_folder, monkeypatch):
    prefix = stratokit_as_nobody(monkeypatch, "bpf", "perfmon", "net_admin")
    with recording(open_folder / "a.parquet", prefix=prefix) as made, echo.echo_server() as server:
        talk = echo.converse(server)
    assert made.path.stat().st_uid == NOBODY
    packets = made.rows("packet").filter(pl.col("src_port") == talk.client_port, pl.col("direction") == "out")
    assert set(packets["pid"]) == {talk.client_pid}
    assert "ESTABLISHED" in made.rows("socket").filter(pl.col("src_port") == talk.client_port)["new_state"]
    assert made.rows("syscall").filter(pl.col("pid") == talk.client_pid, syscall="connect").height == 1
    assert made.losses().get("process_unreadable", 0) > 0  # said, not hidden: CAP_SYS_PTRACE was not given


def doctor(prefix: tuple[str, ...]) -> tuple[int, dict[tuple[str, str], dict]]:
    command = [*prefix, python_for_nobody(), *STRATOKIT[1:], "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert "Traceback" not in done.stderr
    return done.returncode, {(c["feature"], c["name"]): c for c in json.loads(done.stdout)}


def test_doctor_names_what_each_feature_lacks():
    code, checks = doctor(as_nobody())
    assert code == 1
    for feature, needed in {
        "packets": {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"},
        "sockets": {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"},
        "syscalls": {"CAP_BPF", "CAP_PERFMON"},
        "devices": {"CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON"},
    }.items():
        missing = {
            name for (f, name), c in checks.items() if f == feature and name[:4] == "CAP_" and not c["ok"]
        }
        assert missing == needed
        assert "setpriv" in checks[feature, "CAP_BPF"]["remedy"]


def test_doctor_finds_nothing_missing_with_them():
    _, checks = doctor(as_nobody("bpf", "perfmon", "net_admin"))
    attached = {feature for (feature, name), c in checks.items() if name == "attach" and c["ok"]}
    tried = {feature for feature, name in checks if name == "attach"}
    # Whatever doctor tries but devices, which the next lines are about.
    assert attached == tried - {"devices"} == {*DEFAULT, "tls"}
    assert not checks["older sockets", "CAP_SYS_PTRACE"]["ok"]
    # At devices one more is needed, and one of them does it.
    assert "CAP_NET_RAW" in checks["devices", "attach"]["found"]
    _, checks = doctor(as_nobody("bpf", "perfmon", "net_admin", "net_raw"))
    assert checks["devices", "attach"]["ok"]


def test_recording_without_them_is_one_sentence(open_folder):
    command = [
        *as_nobody(),
        python_for_nobody(),
        *STRATOKIT[1:],
        "record",
        "-o",
        str(open_folder / "a.parquet"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "capabilities" in done.stderr
    assert list(open_folder.iterdir()) == []


def test_the_remedies_mend_what_they_are_for(open_folder):
    """Each line that doctor gives user nobody is run as it stands, but without sudo: as root."""
    _, before = doctor(as_nobody())
    for feature in ("packets", "syscalls", "devices", "older sockets"):
        missing = [
            c for (f, name), c in before.items() if f == feature and name[:4] == "CAP_" and not c["ok"]
        ]
        words = shlex.split(missing[0]["remedy"])
        assert (words[0], words[-1]) == ("sudo", "record")
        environment = {"PYTHONPATH": f"{ROOT}:{site_packages()}", "PATH": os.environ["PATH"]}
        command = [*words[1:-1], "doctor", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)
        after = {(c["feature"], c["name"]): c for c in json.loads(done.stdout)}
        assert all(c["ok"] for (f, _), c in after.items() if f == feature), (feature, done.stdout)
    command = [
        *words[1:],
        "-o",
        str(open_folder / "a.parquet"),
        "--syscalls",
        "openat",
        "--duration",
        "200ms",
    ]
    subprocess.run(command, capture_output=True, text=True, check=True, cwd="/", env=environment)
    assert pl.read_parquet(open_folder / "a.parquet").filter(kind="process").height > 0
    status = os.stat(open_folder / "a.parquet")
    assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY)


def test_the_remedy_for_a_missing_cgroup2():
    """In a mount namespace where it was unmounted, wherever it was."""
    script = f"""
    findmnt -rno TARGET -t cgroup2 | xargs -n1 umount -l
    remedy=$({sys.executable} -m stratokit doctor --json | {sys.executable} -c '
import json, sys
print(next(c["remedy"] for c in json.load(sys.stdin) if c["name"] == "cgroup2"))')
    echo "$remedy"
    eval "${{remedy//sudo /}}"
    {sys.executable} -m stratokit doctor --json
    """
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    remedy, _, rest = done.stdout.partition("\n")
    assert "mount -t cgroup2" in remedy, done.stderr
    after = {(c["feature"], c["name"]): c for c in json.loads(rest)}
    assert after["packets", "cgroup2"]["ok"]
    assert after["packets", "attach"]["ok"]
