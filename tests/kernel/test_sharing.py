"""Sockets that several processes or threads use: each packet and call belongs to the one who used it then."""

import polars as pl
import pytest
from recording import recording
from workloads import sharing

pytestmark = pytest.mark.kernel


def payload_packets(made, server_port):
    """Packets with payload, with the ports as the end that saw it has them."""
    out = pl.col("direction") == "out"
    rows = made.rows("packet").filter(pl.col("payload_len") > 0)
    return rows.with_columns(
        pl.when(out).then("src_port").otherwise("dst_port").alias("local"),
        pl.when(out).then("dst_port").otherwise("src_port").alias("remote"),
    ).filter((pl.col("local") == server_port) | (pl.col("remote") == server_port))


@pytest.mark.parametrize(
    "scenario",
    [("forked",), ("passed",), ("threads",), ("datagrams", "127.0.0.1"), ("datagrams", "::1"), ("mmsg",)],
    ids=" ".join,
)
def test_packets_belong_to_who_used_the_socket(tmp_path, scenario):
    with recording(tmp_path / "a.parquet") as made:
        facts = sharing.run(*scenario)
    packets = payload_packets(made, facts.server_port)
    # What comes in before the first read belongs to whoever had the socket until then; who sent is certain.
    sent = packets.filter(direction="out").group_by("local", "remote")
    seen = sent.agg(pl.struct("pid", "tid").unique().alias("who"))
    expected = facts.used if scenario != ("mmsg",) else dict(list(facts.used.items())[:1])
    assert {
        (local, remote): [(who["pid"], who["tid"]) for who in users]
        for local, remote, users in seen.iter_rows()
    } == {ends: [user] for ends, user in expected.items()}
    assert packets["pid"].null_count() == 0
    # Each message once at each end.
    assert packets.height == 2 * packets["frame"].n_unique()


def test_calls_on_a_passed_socket_name_it(tmp_path):
    with recording(tmp_path / "a.parquet") as made:
        facts = sharing.run("passed")
    ours = next(iter(facts.used))
    worker, _ = facts.used[ours]
    name = f"127.0.0.1:{ours[0]}->127.0.0.1:{ours[1]}"
    calls = made.rows("syscall").filter(pl.col("pid") == worker, fd_name=name)
    assert calls.filter(syscall="sendto")["ret"].to_list() == [len(sharing.MESSAGE)] * sharing.MESSAGES
    assert calls["socket_cookie"].n_unique() == 1


def test_the_first_of_many_messages_is_kept(tmp_path):
    with recording(tmp_path / "a.parquet") as made:
        facts = sharing.run("mmsg")
    pid, _ = facts.used[
        facts.server_port, next(remote for _, remote in facts.used if remote != facts.server_port)
    ]
    calls = (
        made.rows("syscall").filter(pl.col("pid") == pid, pl.col("syscall").str.ends_with("mmsg")).sort("ts")
    )
    assert calls["ret"].to_list() == [sharing.MESSAGES] * 2
    assert calls["data"].to_list() == [b"0" * 80] * 2


def test_unix_sockets_have_their_path_as_name(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    with recording(tmp_path / "a.parquet") as made:
        facts = sharing.run("unix", str(folder))
    pid, _ = facts.used[0, 0]
    calls = made.rows("syscall").filter(pl.col("pid") == pid, fd_kind="socket").sort("ts")
    for name in ("connect", "bind", "listen"):
        assert calls.filter(syscall=name)["fd_name"].to_list() == list(facts.paths)
    assert set(facts.paths) <= set(calls.filter(syscall="sendto")["fd_name"])
