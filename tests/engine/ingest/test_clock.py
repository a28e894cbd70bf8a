"""Monotonic times become UTC by the clock readings around them."""

from stratokit.engine.ingest.clock import Clock


def pair(monotonic, real, boot=0):
    return {"monotonic_ns": monotonic, "real_ns": real, "boot_ns": boot}


def test_one_reading_shifts():
    assert Clock([pair(100, 10_000)]).utc_ns([0, 100, 250]).tolist() == [9_900, 10_000, 10_150]


def test_drift_is_spread_between_readings():
    clock = Clock([pair(0, 0), pair(1_000_000, 1_000_100)])
    assert clock.utc_ns([0, 500_000, 1_000_000, 2_000_000]).tolist() == [0, 500_050, 1_000_100, 2_000_100]


def test_a_step_takes_effect_at_the_reading_that_shows_it():
    hour = 3600 * 10**9
    clock = Clock([pair(0, 10**18), pair(10**10, 10**18 + 10**10 + hour)])
    assert clock.utc_ns([10**10 - 2]).tolist() == [10**18 + 10**10 - 2]
    assert clock.utc_ns([10**10 + 5]).tolist() == [10**18 + 10**10 + 5 + hour]


def test_nanoseconds_survive_large_numbers():
    clock = Clock([pair(5 * 10**15, 1_790_000_000_123_456_789), pair(6 * 10**15, 1_791_000_000_123_456_789)])
    assert clock.utc_ns([5 * 10**15 + 1]).tolist() == [1_790_000_000_123_456_790]


def test_boot_times():
    assert Clock([pair(0, 1_000, 400)]).boot_to_utc_ns([100]).tolist() == [700]
