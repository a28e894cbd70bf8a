"""Recording across network namespaces, and from inside a pid namespace."""

import shutil
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from recording import STRATOKIT, UNLIMITED, recording, watches
from workloads import echo, namespaces

import stratokit as sk

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("ip") is None, reason="ip (iproute2) is missing"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (util-linux) is missing"),
]


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_packet_between_namespaces_is_one_packet(tmp_path, when):
    """Namespaces that were there before the recording, and namespaces made while it ran."""
    if when == "before":
        with (
            namespaces.pair() as where,
            namespaces.server(where) as server,
            recording(tmp_path / "a.parquet") as made,
        ):
            talk = namespaces.converse(where, server)
    else:
        with (
            recording(tmp_path / "a.parquet") as made,
            namespaces.pair() as where,
            namespaces.server(where) as server,
        ):
            talk = namespaces.converse(where, server)
            made.stop()
    packets = made.rows("packet").filter(
        (pl.col("src_port") == talk.server_port) | (pl.col("dst_port") == talk.server_port)
    )
    by_frame = packets.group_by("frame").agg(pl.col("direction").sort(), pl.len())
    assert set(by_frame["len"]) == {2}
    client = pl.col("src_ip") == namespaces.NEAR
    out = pl.col("direction") == "out"
    for mine, interface, pid in (
        (packets.filter(client == out), where.near_interface, talk.client_pid),
        (packets.filter(client != out), where.far_interface, talk.server_pid),
    ):
        assert set(mine["interface"]) == {interface}
        assert set(mine["pid"]) == {pid}
    (flow,) = (
        sk.open(made.path)
        .table("flows")
        .filter(pl.col("server_port") == talk.server_port)
        .collect()
        .rows(named=True)
    )
    assert flow["packets_c2s"] + flow["packets_s2c"] == by_frame.height
    exported = tmp_path / "a.pcapng"
    subprocess.run([*STRATOKIT, "convert", made.path, exported], check=True)
    if shutil.which("tshark"):
        fields = ["-T", "fields", "-e", "frame.interface_name"]
        command = ["tshark", "-n", "-r", exported, "-Y", f"tcp.port == {talk.server_port}", *fields]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert len(names) == by_frame.height
        assert set(names) <= {where.near_interface, where.far_interface}


def test_inside_a_pid_namespace_the_recorder_knows_itself(tmp_path):
    """It leaves out its own calls, not those of whom the host knows by its number, and says what it lacks."""
    path = tmp_path / "a.parquet"
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*inside, *STRATOKIT, "record", *UNLIMITED, "-o", path, "--duration", "3s"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        echo.echo_server() as server,
    ):
        end = time.monotonic() + 60
        while not watches(path.with_suffix(".spool")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        talk = echo.converse(server)
        said = process.communicate()[1]
    assert process.returncode == 0, said
    rows = pl.read_parquet(path)
    assert rows.filter(counter="proc_foreign").height == 1
    # The recorder is the child of unshare, and writes its spool.
    assert len(children) == 1
    assert rows.filter(pl.col("pid") == int(children[0]), kind="syscall").is_empty()
    sent = rows.filter(pl.col("src_port") == talk.client_port, kind="packet", direction="out")
    assert set(sent["pid"]) == {talk.client_pid}
