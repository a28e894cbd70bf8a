"""Which step is taken when, and when it is taken back."""

import dataclasses

import pytest

from stratokit.record import guard, limits
from stratokit.record.limits import (
    BUSY_CALLS,
    CALLS,
    DATA,
    DROPS,
    PACKETS,
    PAYLOAD,
    PLAINTEXT,
    Limiter,
    Usage,
)
from stratokit.record.options import Limits, RecordOptions
from stratokit.render.limits import limit_lines

SECOND = 1_000_000_000
# A server: most bytes are payload, some are data of calls; 3 and 4 are its busy calls, 288 tells owners.
BUSY = Usage(
    span_ns=SECOND,
    cpu_ns=SECOND // 2,
    written=0,
    drained=1000,
    payload=600,
    data=200,
    packets=300,
    events=1000,
    calls={3: 300, 4: 250, 5: 50, 288: 100},
)


def looks(limiter, *usages):
    """One look a second; the steps in force after each."""
    found = []
    for second, usage in enumerate(usages):
        limiter.look(second * SECOND, usage)
        found.append(limiter.steps)
    return found


def used(percent, **others):
    return dataclasses.replace(BUSY, cpu_ns=SECOND * percent // 100, **others)


def test_what_costs_most_goes_first_and_one_step_a_look():
    limiter = Limiter(Limits(cpu=0.2), spared={288})
    steps = looks(limiter, *[BUSY] * 7)
    order = [PAYLOAD, DATA, BUSY_CALLS, PACKETS, CALLS]
    assert steps[:5] == [frozenset(order[: n + 1]) for n in range(5)]
    assert limiter.calls == {3, 4}
    assert [row["action"] for row in limiter.rows] == ["left out"] * 5 + ["nothing more to leave out"]
    assert limiter.rows[0] == {
        "at_ns": 0,
        "step": "packet payload",
        "action": "left out",
        "because": "cpu",
        "used": 0.5,
        "allowed": 0.2,
        "calls": [],
    }


def test_what_would_save_little_is_passed_over():
    calls_only = used(50, payload=0, data=20, packets=0, calls={0: 500, 1: 490})
    assert looks(Limiter(Limits(cpu=0.2)), calls_only) == [{BUSY_CALLS}]


def test_plaintext_and_dropped_packets_go_too():
    """Where they are most of the load; dropped packets before others, as each costs most."""
    many = used(50, payload=0, data=0, plaintext=600, packets=300, drops=600, calls={})
    limiter = Limiter(Limits(cpu=0.2))
    assert looks(limiter, many, many, many)[-1] == {PLAINTEXT, DROPS, PACKETS}
    assert [row["step"] for row in limiter.rows] == ["plaintext of TLS", "dropped packets", "packets"]
    assert looks(Limiter(Limits(cpu=0.2)), used(50, calls={}, data=0, payload=10)) == [{PACKETS}]


def test_within_the_limit_nothing_is_left_out():
    limiter = Limiter(Limits(cpu=0.2))
    assert looks(limiter, *[used(20)] * 3) == [frozenset()] * 3
    assert limiter.rows == []


def shedding(percent, packets):
    return used(percent, payload=0, shed={"packet_payload_shed": packets})


def test_a_step_is_taken_back_when_the_load_falls_and_not_before():
    limiter = Limiter(Limits(cpu=0.2))
    # Half a processor; a fifth once payload is left out; it would be half again.
    same = [shedding(20, 1000)] * 30
    assert looks(limiter, BUSY, *same)[-1] == {PAYLOAD}
    # A tenth of the packets: with their payload it would be 3 % more.
    assert limiter.look(40 * SECOND, shedding(4, 100))
    assert limiter.steps == frozenset()
    assert limiter.rows[-1]["action"] == "recorded again"


def test_one_that_returns_is_held_longer_each_time():
    limiter = Limiter(Limits(cpu=0.2))
    low = shedding(2, 10)
    held = []
    now = 0
    for _ in range(4):
        limiter.look(now := now + SECOND, BUSY)
        assert limiter.steps
        limiter.look(now := now + SECOND, shedding(15, 1000))
        began = now
        while limiter.steps:
            limiter.look(now := now + SECOND, low)
        held.append((now - began) // SECOND)
    assert held == [1, 3, 7, 15]


def test_what_was_foreseen_wrongly_is_tried_again_after_a_minute():
    limiter = Limiter(Limits(cpu=0.2))
    steps = looks(limiter, BUSY, *[shedding(10, 1000)] * 70)
    assert steps[60] == {PAYLOAD}
    assert steps[70] == frozenset()


def test_the_disk_fills_by_halves():
    limiter = Limiter(Limits(disk_bytes=1000))
    written = [100, 501, 600, 751, 876, 938, 970]
    steps = looks(limiter, *(used(1, written=n) for n in written))
    assert [len(found) for found in steps] == [0, 1, 1, 2, 3, 4, 5]
    # A rotation removed older files.
    limiter.look(9 * SECOND, used(1, written=100))
    assert len(limiter.steps) == 4


def test_rows_are_bounded():
    limiter = Limiter(Limits(cpu=0.2))
    for second in range(3 * limits.ROWS_MOST):
        limiter.note(second, "step", "cpu", 1.0, 0.2)
    assert len(limiter.rows) == limits.ROWS_MOST
    assert limiter.decisions == 3 * limits.ROWS_MOST


@pytest.mark.parametrize(
    ("memory", "buffer", "fits"),
    [
        (None, 1 << 30, 1 << 30),
        (guard.BASE_BYTES + (64 << 20), 64 << 20, 64 << 20),
        (guard.BASE_BYTES + (63 << 20), 64 << 20, 32 << 20),
    ],
)
def test_the_buffer_is_made_to_fit(tmp_path, memory, buffer, fits):
    options = RecordOptions(tmp_path, tmp_path, buffer_bytes=buffer, limits=Limits(memory_bytes=memory))
    assert guard.fitted(options).buffer_bytes == fits


def test_each_step_is_a_sentence():
    steps = [
        {"ts": 1, "step": "busy system calls", "action": "left out", "because": "cpu", "used": 0.31}
        | {"allowed": 0.2, "calls": ["read", "write"]},
        {
            "ts": 5 * SECOND,
            "step": "busy system calls",
            "action": "recorded again",
            "because": "cpu",
            "used": 0.1,
        }
        | {"allowed": 0.2, "calls": ["read", "write"]},
        {"ts": 9 * SECOND, "step": "packets", "action": "left out", "because": "disk", "used": 9e8}
        | {"allowed": 1e9, "calls": []},
    ]
    first, second = limit_lines(steps)
    assert first == (
        "busy system calls (read, write) left out from 00:00:00.000 to 00:00:05.000, because of --max-cpu: "
        "31 % of a processor were used, 20 % allowed"
    )
    assert second == (
        "packets left out from 00:00:09.000 to the end, because of --max-disk: 900 MB, allowed 1.00 GB"
    )
