"""Delays injected one at a time at known places of a recorded system stand in the right part, within 5 %."""

import contextlib
import subprocess
from pathlib import Path

import polars as pl
import pytest
from recording import recording
from workloads.common import python_child, python_server
from workloads.lossy import ADDRESSES, inside, lossy_link
from workloads.nginx import nginx
from workloads.tiers import DELAY_S

import stratokit as sk
from stratokit.engine.latency.table import PARTS

pytestmark = pytest.mark.kernel

DELAY_NS = int(DELAY_S * 1e9)
LIMIT_NS = DELAY_NS // 20
ROUNDS = 2
NETWORK = {"connect_ns", "network_to_ns", "network_back_ns"}
# Where each delay stands in what the client asked nginx, and in what nginx asked the application.
EXPECTED = {
    "nowhere": (set(), set()),
    "resolver": ({"name_ns"}, set()),
    "network": (NETWORK, set()),
    "accept": ({"app_ns", "upstream_ns"}, {"server_buffer_ns"}),
    "read": ({"app_ns", "upstream_ns"}, {"server_buffer_ns"}),
    "app": ({"app_ns", "upstream_ns"}, {"app_ns"}),
    "store": ({"app_ns", "upstream_ns"}, {"app_ns", "upstream_ns"}),
    "reader": ({"client_buffer_ns"}, set()),
}


@contextlib.contextmanager
def asking(folder, *ports, prefix):
    """The client as a process: a function that has it ask for a path."""
    words = (str(folder), *map(str, ports))
    with python_child("workloads.tiers", "client", *words, stdin=subprocess.PIPE, prefix=prefix) as child:
        assert child.stdout.readline().startswith("{")

        def ask(path):
            child.stdin.write(f"{path}\n")
            child.stdin.flush()
            assert child.stdout.readline() == "asked\n"

        yield ask
        child.stdin.close()


@contextlib.contextmanager
def three_tiers(folder: Path):
    """Client and resolver on one host; nginx, application and store on another; a network between them.

    Gives a function that asks once, with a delay at one place.
    """
    (folder / "delay").write_text("")
    with lossy_link(0, 0) as link:
        near, far = (inside(namespace) for namespace in link.namespaces)

        def tier(role, *words, prefix):
            return python_server("workloads.tiers", role, str(folder), *map(str, words), prefix=prefix)

        with (
            tier("resolver", ADDRESSES[1], prefix=near) as resolver,
            tier("store", prefix=far) as store,
            tier("app", store["port"], prefix=far) as app,
            nginx(upstream=app["port"], address=ADDRESSES[1], prefix=far) as front,
            asking(folder, resolver["port"], front.port, prefix=near) as ask,
        ):

            def ask_with(place):
                (folder / "delay").write_text(place)
                link.held_s, link.delay_s = 0, DELAY_S if place == "network" else 0
                ask(f"/app/page?{place}")
                if place == "network":
                    with (folder / place).open("a") as took:
                        print(int(link.held_s * 1e9), file=took)

            yield ask_with


def over(row, place, took_ns):
    """By how much each part is longer than the delay that stands in it."""
    kernels = row["server_ns"] if row["kind"] == "tcp" else 0  # no application answers a SYN
    assert row["rest_ns"] == 0
    assert sum(row[part] or 0 for part in PARTS) + kernels == row["total_ns"]
    ways = {"connect_ns": 2} if row["kind"] == "http" else {}
    parts = (*PARTS, "upstream_ns")
    return {part: (row[part] or 0) - (took_ns * ways.get(part, 1) if part in place else 0) for part in parts}


def within_the_limit(rows, parts, took_ns):
    """Each part is what was injected there, in the round in which the machine was least busy elsewhere."""
    rounds = [over(row, parts, ns) for row, ns in zip(rows, took_ns, strict=True)]
    off = {part: min((by[part] for by in rounds), key=abs) for part in rounds[0]}
    return {part: ns for part, ns in off.items() if not -LIMIT_NS <= ns <= LIMIT_NS}


def test_each_delay_stands_in_its_part(tmp_path):
    with three_tiers(tmp_path) as ask_with, recording(tmp_path / "tiers.parquet") as made:
        for _ in range(ROUNDS):
            for place in EXPECTED:
                ask_with(place)
    capture = sk.open(made.path)
    latency = capture.table("latency").sort("ts").collect()
    took = {place: [0] * ROUNDS for place in EXPECTED}
    for place in took.keys() - {"nowhere"}:
        took[place] = [int(line) for line in (tmp_path / place).read_text().split()]
        assert all(DELAY_NS <= ns < 2 * DELAY_NS for ns in took[place])
    wrong = {}
    for place, sides in EXPECTED.items():
        for prefix, parts in zip(("/app", ""), sides, strict=True):
            rows = latency.filter(kind="http", path=f"{prefix}/page?{place}").to_dicts()
            wrong[place, prefix] = within_the_limit(rows, parts, took[place])
    for kind, place, parts in (("dns", "resolver", {"app_ns"}), ("tcp", "network", NETWORK - {"connect_ns"})):
        slow = latency.filter(pl.col("kind") == kind, pl.col("total_ns") > DELAY_NS).to_dicts()
        wrong[place, kind] = within_the_limit(slow, parts, took[place])
    assert not any(wrong.values()), wrong
    quick = latency.filter(kind="http", path="/app/page?nowhere").row(0, named=True)
    assert all(quick[part] is not None for part in PARTS if part != "tls_ns")
