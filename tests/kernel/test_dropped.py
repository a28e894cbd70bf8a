"""What a recorder may still do once it records."""

import contextlib
import os
import stat
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import recording as helper
from nobody import NOBODY, ROOT, folder_for_all, python_for_nobody, site_packages
from recording import STRATOKIT, recording
from workloads import echo

from stratokit.record.privileges import BITS

pytestmark = pytest.mark.kernel
READING = {"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"}


def status(pid) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capabilities(found, which="CapEff") -> set[str]:
    mask = int(found[which], 16)
    names = {name for name, bit in BITS.items() if mask >> bit & 1}
    assert mask == sum(1 << BITS[name] for name in names)  # and none but these
    return names


def wait_for_drop(made) -> None:
    end = time.monotonic() + 20
    while status(made.process.pid)["NoNewPrivs"] == "0" and time.monotonic() < end:
        time.sleep(0.02)


def dropped(made) -> dict[str, str]:
    found = status(made.process.pid)
    assert capabilities(found) == capabilities(found, "CapPrm") == capabilities(found, "CapBnd")
    assert int(found["CapAmb"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    return found


def test_root_keeps_only_what_it_reads_with(tmp_path):
    with echo.echo_server() as server, echo.echo_server() as other, contextlib.ExitStack() as conversation:
        talk = conversation.enter_context(echo.connected(server))
        with recording(tmp_path / "a.parquet") as made:
            wait_for_drop(made)
            kept = capabilities(dropped(made))
            second = echo.converse(other)
    # CAP_SYS_ADMIN only where there are other network namespaces to look into.
    assert kept - {"CAP_SYS_ADMIN"} == READING
    # Nothing of a recording lacks for it: packets have owners, waiting calls of other processes are there.
    packets = made.rows("packet").filter(pl.col("src_port") == second.client_port, direction="out")
    assert set(packets["pid"]) == {second.client_pid}
    waiting = made.rows("syscall").filter(
        pl.col("pid") == talk.server_pid, syscall="recvfrom", unfinished=True
    )
    assert waiting.height == 1


def test_with_a_scope_of_cgroups_programs_can_be_attached_later(tmp_path):
    with recording(tmp_path / "a.parquet", "--cgroup", "/") as made:
        wait_for_drop(made)
        kept = capabilities(dropped(made))
    assert kept == READING | {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN"}


def test_a_command_has_the_privileges_of_its_user(tmp_path):
    command = ["sh", "-c", f"grep -E 'CapEff|NoNewPrivs|CapBnd' /proc/self/status > {tmp_path}/status"]
    done = subprocess.run([*STRATOKIT, "record", "-o", tmp_path / "a.parquet", "--", *command], check=False)
    assert done.returncode == 0
    mine = status("self")
    found = dict(line.split(":\t") for line in (tmp_path / "status").read_text().splitlines())
    assert found == {name: mine[name] for name in ("CapEff", "CapBnd", "NoNewPrivs")}


def test_another_user(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{site_packages()}")
    monkeypatch.setattr(helper, "STRATOKIT", (python_for_nobody(), "-m", "stratokit"))
    with folder_for_all() as folder, echo.echo_server() as server:
        with recording(folder / "a.parquet", "--user", str(NOBODY)) as made:
            wait_for_drop(made)
            found = dropped(made)
            assert found["Uid"].split() == found["Gid"].split() == [str(NOBODY)] * 4
            assert found["Groups"] == ""
            assert capabilities(found) - {"CAP_SYS_ADMIN"} == READING
            talk = echo.converse(server)
        packets = made.rows("packet").filter(pl.col("src_port") == talk.client_port, direction="out")
        assert set(packets["pid"]) == {talk.client_pid}
        assert made.path.stat().st_uid == NOBODY
        assert not made.spool.exists()


def test_a_user_who_may_not_write_there_is_one_sentence(tmp_path, monkeypatch):
    tmp_path.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{site_packages()}")
    command = [
        python_for_nobody(),
        "-m",
        "stratokit",
        "record",
        "-o",
        tmp_path / "a.parquet",
        "--user",
        "nobody",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 1
    assert "may not write to" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_with_plaintext_of_tls_libraries_can_be_watched_later(tmp_path):
    """That they still are is seen in test_tls_plaintext.py, in a container and of a removed library."""
    with recording(tmp_path / "a.parquet", "--tls", "--comm", "curl") as made:
        wait_for_drop(made)
        kept = capabilities(dropped(made))
    assert kept - {"CAP_SYS_ADMIN"} == READING | {"CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE"}
