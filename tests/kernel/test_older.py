"""What began before the recording, and what ends after it."""

import contextlib
import subprocess
import sys

import polars as pl
import pytest
from recording import recording
from workloads import echo

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_connection_older_than_the_recording(tmp_path, address):
    """Its packets have both processes, and its end is seen state by state."""
    with echo.echo_server(address=address) as server, contextlib.ExitStack() as conversation:
        talk = conversation.enter_context(echo.connected(server))
        with recording(tmp_path / "a.parquet") as made:
            conversation.close()
    packets = made.rows("packet").with_columns(
        pl.when(direction="out").then("src_port").otherwise("dst_port").alias("local"),
        pl.when(direction="out").then("dst_port").otherwise("src_port").alias("remote"),
    )
    for local, remote, who in (
        (talk.client_port, talk.server_port, (talk.client_pid, talk.client_comm)),
        (talk.server_port, talk.client_port, (talk.server_pid, server.comm)),
    ):
        mine = packets.filter((pl.col("local") == local) & (pl.col("remote") == remote))
        assert set(mine.select("pid", "comm").rows()) == {who}
        assert mine.filter(direction="out")["payload_len"].sum() == talk.bytes_each_way
        states = made.rows("socket").filter(
            pl.col("event") == "state", pl.col("src_port") == local, pl.col("dst_port") == remote
        )
        states = states.sort("ts")
        assert states["old_state"][0] == "ESTABLISHED"
        assert states["new_state"][-1] == "CLOSE"
        assert states["old_state"].to_list()[1:] == states["new_state"].to_list()[:-1]
        assert set(states["src_ip"]) | set(states["dst_ip"]) == {address}
        assert set(states.select("pid", "comm").rows()) == {who}
        assert set(states["socket_cookie"]) == set(mine["socket_cookie"])
        assert states["bytes_acked"][-1] >= talk.bytes_each_way


def child(code: str, *, stdin: int = subprocess.PIPE) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=stdin, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_calls_that_began_before_or_end_after(tmp_path):
    wait = "import sys; print('ready', flush=True); sys.stdin.readline(); print('ready', flush=True)"
    both = child(wait)
    before = child(wait)
    with recording(tmp_path / "a.parquet") as made:
        before.communicate("\n")
        after = child(wait)
    for process in (both, after):
        process.communicate("\n")
    calls = made.rows("syscall").filter(syscall="read", fd=0)
    ends = {process.pid: calls.filter(pl.col("pid") == process.pid) for process in (both, before, after)}
    # Began before: the end was seen, how long it took is not known.
    row = ends[before.pid].sort("ts").row(0, named=True)
    assert (row["ret"], row["duration_ns"], row["unfinished"]) == (1, None, None)
    # Ends after: so long it had waited when the recording ended.
    for process in (both, after):
        row = ends[process.pid].row(-1, named=True)
        assert (row["ret"], row["errno"], row["unfinished"]) == (None, None, True)
        assert (row["fd_kind"], row["fd_name"][:6]) == ("pipe", "pipe:[")
        assert row["duration_ns"] > 0
    assert ends[both.pid]["duration_ns"][-1] > ends[after.pid]["duration_ns"][-1]
    # A call is told once.
    assert ends[both.pid].height == 1


def test_who_waits_on_a_socket_owns_it(tmp_path):
    """A thread that waits for an answer through the whole recording has made no call that was seen."""
    with echo.echo_server() as server, contextlib.ExitStack() as conversation:
        talk = conversation.enter_context(echo.connected(server))
        with recording(tmp_path / "a.parquet") as made:
            pass
        waiting = made.rows("syscall").filter(
            pl.col("pid") == talk.server_pid, syscall="recvfrom", unfinished=True
        )
        assert waiting["fd_name"].to_list() == [f"127.0.0.1:{talk.server_port}->127.0.0.1:{talk.client_port}"]
        assert waiting["socket_cookie"].null_count() == 0
