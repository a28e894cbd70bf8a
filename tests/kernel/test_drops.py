"""Packets that the kernel drops: as many for each reason as were made, with process, place and stack."""

import json
import shutil
import subprocess

import polars as pl
import pytest
from recording import STRATOKIT, recording
from workloads import dropping, router

import stratokit as sk

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("ip") is None, reason="ip (iproute2) is missing"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft (nftables) is missing"),
]


def test_every_drop_with_its_reason(tmp_path):
    with router.router(quiet=True) as where, recording(tmp_path / "a.parquet") as made:
        did = dropping.drop_packets(where.middle)
    capture = sk.open(made.path)
    rows = capture.table("drops").collect()
    (namespace,) = rows.filter(pl.col("dst_port") == dropping.FULL_PORT)["netns"].unique()
    # A checksum is found wrong when the datagram is read: then it has neither socket nor namespace any more.
    wrong = rows.filter(drop_reason="UDP_CSUM", dst_port=dropping.WRONG_PORT)
    assert wrong.height == dropping.WRONG
    mine = rows.filter(pl.col("netns") == namespace, pl.col("drop_reason") != "UDP_CSUM")
    lost = dropping.FULL - did.received
    expected = {
        ("SOCKET_RCVBUFF", 17, dropping.FULL_PORT): lost,
        ("NO_SOCKET", 17, dropping.CLOSED_PORT): dropping.CLOSED,
        ("NETFILTER_DROP", 17, dropping.FORBIDDEN_PORT): dropping.FORBIDDEN,
        ("NO_SOCKET", 6, dropping.CLOSED_PORT): dropping.REFUSED,
    }
    counted = mine.group_by("drop_reason", "ip_proto", "dst_port").len()
    assert {row[:3]: row[3] for row in counted.iter_rows()} == expected
    # The kernel's own counters of the namespace.
    snmp = {name: did.snmp[name] for name in ("RcvbufErrors", "NoPorts", "InCsumErrors")}
    assert snmp == {"RcvbufErrors": lost, "NoPorts": dropping.CLOSED, "InCsumErrors": dropping.WRONG}
    assert set(mine["interface"]) == {"lo"}
    assert set(mine["src_ip"]) == {"127.0.0.1"}
    full = mine.filter(drop_reason="SOCKET_RCVBUFF")
    assert set(full["pid"]) == {did.pid}
    assert full["socket_cookie"].n_unique() == 1
    assert set(full["payload_len"]) == {200}
    assert set(mine.filter(ip_proto=17, drop_reason="NO_SOCKET")["pid"]) == {None}
    assert all("udp" in place for place in full["drop_location"])
    stacks = full["kernel_stack"].drop_nulls()  # of the first at a place, and of some later ones
    assert len(stacks) > 0
    assert all("udp_queue_rcv" in stack for stack in stacks)
    assert not [name for name in made.losses() if name.startswith("drop")]
    # What a user sees of it.
    command = [*STRATOKIT, "report", made.path, "--only", "drops,findings", "--format", "json"]
    said = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    (top,) = (row for row in said["drops"]["rows"] if row["dst_port"] == dropping.FULL_PORT)
    assert (top["packets"], top["pid"], top["proto"]) == (lost, did.pid, "udp")
    (found,) = (row for row in said["findings"]["rows"] if f"pid {did.pid})" in row["finding"])
    assert (
        f"lost {lost} packets at port {dropping.FULL_PORT} because its receive buffer was full"
        in found["finding"]
    )
    assert capture.where(found["filter"]).table("drops").collect().height == lost


def test_a_scope_has_its_own_drops_and_no_others(tmp_path):
    with router.router(quiet=True) as where:
        command = ("ip", "netns", "exec", where.middle, *dropping.COMMAND)
        with recording(tmp_path / "a.parquet", "--", *command) as made:
            dropping.drop_packets(where.left)
            did = json.loads(made.process.communicate(timeout=60)[0])
    drops = made.rows("drop")
    lost = dropping.FULL - did["received"]
    assert drops.filter(drop_reason="SOCKET_RCVBUFF").height == lost
    assert set(drops["pid"]) == {did["pid"]}
