"""Which step is taken when, and when it is taken back."""

import dataclasses

import pytest

from stratokit.record import guard, host_load, limits
from stratokit.record.limit_rows import sentences
from stratokit.record.limits import Limiter
from stratokit.record.options import Limits, RecordOptions
from stratokit.record.usage import (
    BUSY_CALLS,
    CALLS,
    DATA,
    DROPS,
    PACKETS,
    PAYLOAD,
    PLAINTEXT,
    Usage,
)
from stratokit.render.limits import limit_lines

SECOND = 1_000_000_000
# A server: most bytes are payload, some are data of calls; 3 and 4 are its busy calls, 288 tells owners. Half
# a processor: half of that the recorder, a quarter each packets and calls.
BUSY = Usage(
    span_ns=SECOND,
    written=0,
    recorder_ns=SECOND // 4,
    calls_ns=SECOND // 8,
    packets_ns=SECOND // 8,
    busy_ns=2 * SECOND,
    entered=500,
    drained=1_000_000,
    payload=600_000,
    data=200_000,
    packets=300,
    events=800,
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
    """So much of a processor, in the same parts."""
    parts = {name: getattr(BUSY, name) * percent // 50 for name in ("recorder_ns", "calls_ns", "packets_ns")}
    return dataclasses.replace(BUSY, **parts | others)


def taken(limit, usage):
    """When the same has gone on for a while."""
    limiter = Limiter(limit, spared={288})
    any(limiter.look(second * SECOND, usage) for second in range(30))
    return limiter


@pytest.mark.parametrize(
    ("percent", "steps"),
    [
        # Payload of packets is 600 of 1000 kB, so 15 of the recorder's 25 %, and a part of the programs'.
        (40, {PAYLOAD}),
        (28, {PAYLOAD, DATA}),
        (20, {PAYLOAD, BUSY_CALLS}),
        (10, {PAYLOAD, CALLS}),
    ],
)
def test_all_that_is_needed_is_left_out_at_once_and_no_more(percent, steps):
    limiter = taken(Limits(cpu=percent / 100), BUSY)
    assert limiter.steps == frozenset(steps), limiter.rows


def test_a_row_says_what_was_used_and_allowed():
    assert taken(Limits(cpu=0.2), used(60)).rows[0] == {
        "at_ns": 0,
        "step": "packet payload",
        "action": "left out",
        "because": "cpu",
        "used": 0.6,
        "allowed": 0.2,
        "calls": [],
    }


def test_what_would_save_little_is_passed_over():
    calls_only = Usage(SECOND, 0, SECOND // 10, calls_ns=SECOND // 2, data=20, drained=1000)
    calls_only = dataclasses.replace(calls_only, events=1000, calls={0: 500, 1: 490})
    found = taken(Limits(cpu=0.3), calls_only)
    assert found.steps == {BUSY_CALLS}
    assert found.calls == {0, 1}
    # Where that is not enough nothing of it is needed.
    assert taken(Limits(cpu=0.1), calls_only).steps == {CALLS}


def test_plaintext_and_dropped_packets_go_too():
    """Where they are most of the load; dropped packets before others, as each costs most."""
    many = Usage(SECOND, 0, SECOND // 5, plaintext_ns=SECOND // 2, drained=1000, plaintext=900)
    assert taken(Limits(cpu=0.3), many).steps == {PLAINTEXT}
    drops = Usage(SECOND, 0, SECOND // 5, packets_ns=SECOND // 3, drops_ns=SECOND, drained=1000, events=1000)
    drops = dataclasses.replace(drops, drops=800, packets=200)
    assert taken(Limits(cpu=0.8), drops).steps == {DROPS}
    assert taken(Limits(cpu=0.5), drops).steps == {DROPS, PACKETS}


def test_within_the_limit_nothing_is_left_out():
    limiter = Limiter(Limits(cpu=0.2))
    assert looks(limiter, *[used(20)] * 3) == [frozenset()] * 3
    assert limiter.rows == []


def milliseconds(limiter, usage, span_ms=100):
    """How long the same goes on until something is left out."""
    usage = dataclasses.replace(
        usage,
        span_ns=span_ms * 1_000_000,
        **{
            name: getattr(usage, name) * span_ms // 1000
            for name in ("recorder_ns", "calls_ns", "packets_ns", "busy_ns")
        },
    )
    for number in range(1, 1000):
        if limiter.look(number * usage.span_ns, usage):
            return number * span_ms
    return None


def test_the_more_too_much_the_sooner():
    """And a short burst is recorded."""
    assert milliseconds(Limiter(Limits(cpu=0.1)), used(110)) == 100
    assert milliseconds(Limiter(Limits(cpu=0.1)), used(37)) == 400
    assert milliseconds(Limiter(Limits(cpu=0.1)), used(13)) == 3400
    limiter = Limiter(Limits(cpu=0.1))
    burst, calm = used(80), used(1)
    tenth = {"span_ns": SECOND // 10}
    for second in range(10):
        limiter.look(second * SECOND, dataclasses.replace(used(8), **tenth))  # 80 % of a tenth of a second
        limiter.look(second * SECOND + SECOND, calm)
    assert burst.cpu_ns == 0.8 * SECOND
    assert limiter.rows == []


def test_the_default_is_a_share_of_what_is_busy_and_of_each_processor():
    limit = Limits(busy_share=0.1)
    # Of eight busy processors half a one is little, of two too much, of a tenth of one as of one.
    assert taken(limit, dataclasses.replace(BUSY, busy_ns=8 * SECOND)).steps == frozenset()
    assert taken(limit, dataclasses.replace(BUSY, busy_ns=2 * SECOND)).rows[0]["allowed"] == 0.2
    assert taken(limit, dataclasses.replace(BUSY, busy_ns=SECOND // 10)).rows[0]["allowed"] == 0.1
    # All programs run on one of the processors, where a single thread makes all the calls.
    hot = dataclasses.replace(BUSY, recorder_ns=0, packets_ns=0, calls_ns=SECOND // 2)
    found = taken(limit, dataclasses.replace(BUSY, busy_ns=8 * SECOND, hot=hot))
    assert found.steps == {CALLS}
    assert found.rows[0] | {"at_ns": 0} == {
        "at_ns": 0,
        "step": "system calls",
        "action": "left out",
        "because": "load",
        "used": 0.5,
        "allowed": 0.1,
        "calls": [],
    }


# Twice what is allowed in the tests below, most of it payload.
HEAVY = used(81, payload=800_000, data=0)


def shedding(percent, packets):
    return used(percent, payload=0, shed={"packet_payload_shed": packets})


def test_a_step_is_taken_back_when_the_load_falls_and_not_before():
    limiter = Limiter(Limits(cpu=0.4))
    same = [shedding(25, 1000)] * 30
    assert looks(limiter, HEAVY, *same)[-1] == {PAYLOAD}
    # A tenth of the packets: with their payload it would be a tenth of what it was.
    assert not limiter.look(40 * SECOND, shedding(4, 100))  # which may be a moment
    assert limiter.look(41 * SECOND, shedding(4, 100))
    assert limiter.steps == frozenset()
    assert limiter.rows[-1]["action"] == "recorded again"


def test_calls_that_nobody_sees_come_back_when_there_are_few():
    only_calls = Usage(
        SECOND, 0, SECOND // 5, calls_ns=SECOND, drained=1000, events=9, calls={0: 9}, entered=1_000_000
    )
    limiter = taken(Limits(cpu=0.2), only_calls)
    assert limiter.steps == {CALLS}
    none = Usage(SECOND, 0, SECOND // 100, entered=1_000_000)
    assert looks(limiter, *[none] * 20)[-1] == {CALLS}
    assert not limiter.look(21 * SECOND, dataclasses.replace(none, entered=200_000))
    assert not limiter.look(22 * SECOND, dataclasses.replace(none, entered=100_000))
    assert not limiter.look(23 * SECOND, none)
    assert not limiter.look(24 * SECOND, dataclasses.replace(none, entered=100_000))
    assert limiter.look(25 * SECOND, dataclasses.replace(none, entered=100_000))
    assert limiter.steps == frozenset()


def test_what_tells_most_comes_back_first_if_it_fits():
    limiter = Limiter(Limits(cpu=0.1))
    limiter.look(0, used(60))
    assert [row["step"] for row in limiter.rows] == ["packet payload", "system calls"]
    calm = {"payload": 0, "calls": {}, "data": 0, "calls_ns": 0, "entered": 500}
    limiter.look(SECOND, used(20, **calm, shed={"packet_payload_shed": 1000}))
    # Calls are as many as before, packets are few.
    few = used(1, **calm, shed={"packet_payload_shed": 10})
    assert [limiter.look(at * SECOND, few) for at in (9, 10)] == [False, True]
    assert limiter.steps == {CALLS}
    few = used(1, **calm | {"entered": 5})
    assert [limiter.look(at * SECOND, few) for at in (19, 20)] == [False, True]
    assert limiter.steps == frozenset()


def test_one_that_returns_is_held_longer_each_time():
    limiter = Limiter(Limits(cpu=0.4))
    low = shedding(2, 10)
    held = []
    now = 0
    for _ in range(4):
        limiter.look(now := now + SECOND, HEAVY)
        assert limiter.steps
        limiter.look(now := now + SECOND, shedding(25, 1000))
        began = now
        while limiter.steps:
            limiter.look(now := now + SECOND, low)
        held.append((now - began) // SECOND)
    assert held == [2, 3, 7, 15]


def test_what_was_foreseen_wrongly_is_tried_again_and_later_each_time():
    limiter = Limiter(Limits(cpu=0.4))
    now, tried = 0, []
    for _ in range(5):
        while not limiter.steps:
            limiter.look(now := now + SECOND, HEAVY)
        began = now
        while limiter.steps:
            limiter.look(now := now + SECOND, shedding(25, 1000))
        tried.append((now - began) // SECOND)
    assert tried == [33, 65, 129, 257, 513]


def test_the_kernel_may_refuse_to_attach_again():
    limiter = Limiter(Limits(cpu=0.4))
    looks(limiter, HEAVY, shedding(25, 1000), *[shedding(2, 10)] * 3)
    assert limiter.rows[-1]["action"] == "recorded again"
    limiter.refused()
    assert limiter.rows[-1]["action"] == "could not be recorded again"


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


def test_the_user_is_told_at_once():
    left = [
        {"step": step, "action": "left out", "because": "load", "used": 0.84, "allowed": 0.2}
        for step in ("packet payload", "system calls")
    ]
    back = {
        "step": "system calls",
        "action": "recorded again",
        "because": "load",
        "used": 0.01,
        "allowed": 0.2,
    }
    more = {"step": "", "action": "nothing more to leave out", "because": "cpu", "used": 0.3, "allowed": 0.2}
    disk = {"step": "packets", "action": "left out", "because": "disk", "used": 6e8, "allowed": 1e9}
    (sentence,) = sentences(left, "12:03:04 UTC")
    assert sentence == (
        "recording costs 84 % of a processor, more than 20 %; left out from 12:03:04 UTC on: "
        "packet payload and system calls (--max-cpu none records all)"
    )
    assert sentences([back, more], "now") == [
        "recording costs 30 % of a processor, more than 20 %; there is nothing more to leave out",
        "recorded again from now on: system calls",
    ]
    assert sentences([disk], "now") == [
        "600 MB are written of --max-disk 1000 MB; left out from now on: packets"
    ]
    assert sentences([{"step": "a smaller buffer", "action": ""}], "now") == []


def test_programs_cost_what_was_measured_and_what_is_around_their_runs():
    """Two kinds on two processors, of which the second did nothing."""
    before = [[(10, 1000), (0, 0)], [(0, 0), (0, 0)]] + [[(0, 0), (0, 0)]] * 4
    now = [[(30, 5000), (0, 0)], [(100, 7000), (0, 0)]] + [[(0, 0), (0, 0)]] * 4
    calls, packets = 4000 + 20 * host_load.AROUND_NS[0], 7000 + 100 * host_load.AROUND_NS[1]
    assert host_load.programs_ns(before, now) == [(calls, packets, 0, 0, 0, 0), (0,) * 6]


def test_the_host_is_busy_for_as_long_as_it_is_said_to_be():
    """All processors together, since their start: more than this process."""
    first = host_load.busy_ns()
    sum(range(3_000_000))
    assert 0 < first < host_load.busy_ns()
