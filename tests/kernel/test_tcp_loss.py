"""Recorded under loss and delay: what we take for retransmissions equals what the kernel counted."""

import subprocess
import sys
import time

import polars as pl
import pytest
from recording import recording
from workloads.lossy import ADDRESSES, inside, lossy_link

import stratokit as sk

pytestmark = pytest.mark.kernel

CONNECTIONS, SIZE, PORT, DELAY_S = 7, 400_000, 4433, 0.01

SERVER = f"""
import socket
with socket.create_server(("{ADDRESSES[1]}", {PORT})) as listener:
    print("ready", flush=True)
    for _ in range({CONNECTIONS}):
        peer, _ = listener.accept()
        with peer:
            left = {SIZE}
            while left:
                left -= len(peer.recv(min(left, 65536)))
            peer.sendall(bytes({SIZE}))
            peer.shutdown(socket.SHUT_WR)
            assert not peer.recv(1)
"""
CLIENT = f"""
import socket
for _ in range({CONNECTIONS}):
    with socket.create_connection(("{ADDRESSES[1]}", {PORT})) as peer:
        peer.sendall(bytes({SIZE}))
        left = {SIZE}
        while left:
            left -= len(peer.recv(65536))
"""
# Small transfers on another port until the kernel has sent something again, which is no burst of it.
NEARLY_PORT = PORT + 1
NEARLY_SERVER = f"""
import socket
with socket.create_server(("{ADDRESSES[1]}", {NEARLY_PORT})) as listener:
    print("ready", flush=True)
    while True:
        peer, _ = listener.accept()
        with peer:
            while got := peer.recv(65536):
                peer.sendall(got)
"""
NEARLY_CLIENT = f"""
import socket, struct
for _ in range(500):
    with socket.create_connection(("{ADDRESSES[1]}", {NEARLY_PORT})) as peer:
        peer.sendall(bytes(3000))
        left = 3000
        while left:
            left -= len(peer.recv(left))
        # tcpi_total_retrans of struct tcp_info
        if struct.unpack_from("I", peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0]:
            break
"""


def test_retransmissions_equal_the_kernels_count(tmp_path):
    with lossy_link(0.03, DELAY_S) as link, recording(tmp_path / "a.parquet") as made:
        command = inside(link.namespaces[1], sys.executable, "-c", SERVER)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout.readline() == "ready\n"
            subprocess.run(inside(link.namespaces[0], sys.executable, "-c", CLIENT), check=True, timeout=120)
            assert server.wait(60) == 0
        command = inside(link.namespaces[1], sys.executable, "-c", NEARLY_SERVER)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout.readline() == "ready\n"
            subprocess.run(
                inside(link.namespaces[0], sys.executable, "-c", NEARLY_CLIENT), check=True, timeout=120
            )
            server.terminate()
        time.sleep(1)  # the last ACKs
    assert link.lost > 20
    capture = sk.open(made.path)
    flows = capture.table("flows").filter(pl.col("server_port") == PORT)
    tcp = flows.join(capture.table("tcp"), on="flow_id").collect()
    assert tcp.height == CONNECTIONS
    counted = tcp.select("kernel_retransmits_c2s", "kernel_retransmits_s2c").rows()
    assert tcp.select("retransmissions_c2s", "retransmissions_s2c").rows() == counted
    # About every second packet is an ACK alone, whose loss makes nobody repeat anything.
    assert sum(map(sum, counted)) >= link.lost // 4
    assert tcp["out_of_order"].sum() == tcp["bytes_missing"].sum() == 0
    found = capture.report(["findings"])["findings"].filter(rule="retransmissions")
    assert found.select("whom", "count").rows() == [
        (f"{ADDRESSES[1]}:{PORT}", sum(map(sum, counted))),
    ]
    again = capture.table("sockets").filter(pl.col("event") == "retransmit").collect()
    stacks = again["kernel_stack"].drop_nulls()
    # Of the first 32 in each state, and some later ones.
    assert len(stacks) >= min(again.height, 30)
    assert all(stack.rpartition(";")[2] in ("tcp_retransmit_skb", "__tcp_retransmit_skb") for stack in stacks)
    ways = ("tcp_retransmit_timer", "tcp_xmit_retransmit_queue", "tcp_xmit_recovery", "tcp_send_loss_probe")
    assert all(any(way in stack for way in ways) for stack in stacks)
    others = capture.table("sockets").filter(pl.col("event") != "retransmit").collect()
    assert others["kernel_stack"].null_count() == others.height
    nearly = capture.table("flows").filter(pl.col("server_port") == NEARLY_PORT)
    assert nearly.join(capture.table("tcp"), on="flow_id").collect()["retransmissions"].sum() > 0
    assert set(tcp["conn_state"]) == {"SF"}
    assert tcp["payload_c2s"].min() >= SIZE
    # Both ways through the link; smoothed, so some way off.
    # After a lost SYN-ACK both ends repeat theirs, and no one can tell which SYN the next SYN-ACK answers.
    assert tcp.filter(syns=1)["syn_rtt_ns"].min() >= 2 * DELAY_S * 1e9
    assert tcp["kernel_srtt_ns"].min() >= 1.5 * DELAY_S * 1e9
    assert tcp["rtt_min_c2s_ns"].min() >= 2 * DELAY_S * 1e9
    for flow in tcp["flow_id"]:
        stream = capture.stream(flow)
        assert stream.bytes(from_client=True) == stream.bytes(from_client=False) == bytes(SIZE)
