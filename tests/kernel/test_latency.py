"""Delays injected one at a time at known places of a recorded system stand in the right part, within 5 %."""

import contextlib
import json
import subprocess
import sys

import pytest
from recording import recording
from workloads.common import TOOLS, python_child, python_server
from workloads.lossy import ADDRESSES, inside, lossy_link
from workloads.nginx import nginx
from workloads.tiers import DELAY_S

import stratokit as sk
from stratokit.engine.latency.table import PARTS

pytestmark = pytest.mark.kernel

DELAY_NS = int(DELAY_S * 1e9)
LIMIT_NS = DELAY_NS // 20
ROUNDS = 3


@contextlib.contextmanager
def asking():
    """The client as a process: a function that has it make a request."""
    child = python_child("workloads.tiers", "client", stdin=subprocess.PIPE)
    with child:
        assert json.loads(child.stdout.readline())["pid"] == child.pid

        def ask(**request):
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            assert child.stdout.readline() == "asked\n"

        yield ask
        child.stdin.close()


def parts(rows):
    """Parts that took long, each as it was in the round in which the machine was least busy elsewhere."""
    for row in rows:
        kernels = row["server_ns"] if row["kind"] == "tcp" else 0  # no application answers a SYN
        assert row["rest_ns"] == 0
        assert sum(row[part] or 0 for part in PARTS) + kernels == row["total_ns"]
    least = {part: min(row[part] or 0 for row in rows) for part in (*PARTS, "upstream_ns")}
    return {part: ns for part, ns in least.items() if ns > DELAY_NS // 4}


def is_the_delay(value):
    return DELAY_NS <= value <= DELAY_NS + LIMIT_NS


def test_each_delay_stands_in_its_part(tmp_path):
    with (
        python_server("workloads.tiers", "resolver") as resolver,
        python_server("workloads.tiers", "store") as store,
        python_server("workloads.tiers", "app", str(store["port"])) as app,
        nginx(upstream=app["port"]) as front,
        asking() as ask,
        recording(tmp_path / "tiers.parquet") as made,
    ):
        names = {"resolver": resolver["port"]}
        for _ in range(ROUNDS):
            ask(port=app["port"], path="/quick?quick", name="quick.tiers.test", **names)
            ask(port=app["port"], path="/quick?resolver", name="slow.tiers.test", **names)
            ask(port=app["slow_accept_port"], path="/quick?accept")
            ask(port=app["slow_read_port"], path="/quick?read")
            ask(port=app["port"], path="/sleep")
            ask(port=app["port"], path="/store")
            ask(port=front.port, path="/app/sleep")
            ask(port=app["port"], path="/quick?reader", read=True)
    capture = sk.open(made.path)
    rows = capture.table("latency").filter(kind="http").collect()
    asked = {}
    for row in rows.to_dicts():
        asked.setdefault((row["path"], row["comm"] == "nginx"), []).append(row)
    assert {len(several) for several in asked.values()} == {ROUNDS}
    found = {key: parts(several) for key, several in asked.items()}
    expected = {
        ("/quick?quick", False): set(),
        ("/quick?resolver", False): {"name_ns"},
        ("/quick?accept", False): {"server_buffer_ns"},
        ("/quick?read", False): {"server_buffer_ns"},
        ("/store", False): {"app_ns", "upstream_ns"},
        ("/app/sleep", False): {"app_ns", "upstream_ns"},
        ("/sleep", False): {"app_ns"},
        ("/sleep", True): {"app_ns"},  # what nginx asked
        ("/quick?reader", False): {"client_buffer_ns"},
    }
    assert {key: set(found[key]) for key in found} == expected
    assert all(is_the_delay(value) for values in found.values() for value in values.values()), found
    slow = parts(capture.table("latency").filter(kind="dns", qname="slow.tiers.test").collect().to_dicts())
    assert set(slow) == {"app_ns"}
    assert is_the_delay(slow["app_ns"])
    named = rows.filter(path="/quick?quick").row(0, named=True)
    assert all(named[part] is not None for part in PARTS if part != "tls_ns")


def test_a_slow_network_stands_in_both_ways(tmp_path):
    with (
        lossy_link(0, DELAY_S) as link,
        recording(tmp_path / "network.parquet") as made,
    ):
        server = subprocess.Popen(
            inside(link.namespaces[1], sys.executable, "-m", "workloads.tiers", "app", "1", ADDRESSES[1]),
            stdout=subprocess.PIPE, text=True, cwd=TOOLS,
        )  # fmt: skip
        with server:
            port = json.loads(server.stdout.readline())["port"]
            asked = {"port": port, "path": "/quick", "address": ADDRESSES[1]}
            subprocess.run(
                inside(link.namespaces[0], sys.executable, "-m", "workloads.tiers", "client"),
                input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True, cwd=TOOLS, timeout=60,
            )  # fmt: skip
            server.terminate()
    rows = sk.open(made.path).table("latency").collect()
    row = rows.filter(kind="http").row(0, named=True)
    found = parts([row])
    assert set(found) == {"connect_ns", "network_to_ns", "network_back_ns"}
    most_ns = link.held_s * 1e9 + LIMIT_NS
    assert DELAY_NS <= found["network_to_ns"] <= most_ns
    assert DELAY_NS <= found["network_back_ns"] <= most_ns
    assert 2 * DELAY_NS <= found["connect_ns"] <= 2 * most_ns
    handshake = parts(rows.filter(kind="tcp").to_dicts())
    assert set(handshake) == {"network_to_ns", "network_back_ns"}
