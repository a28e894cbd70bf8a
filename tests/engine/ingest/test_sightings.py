"""Both sightings of a local packet get one frame number, whatever the windows."""

import itertools

import numpy as np
import pytest

from stratokit.engine.ingest.sightings import CARRY_NS, Sightings, packet_hashes


def number(windows):
    sightings = Sightings()
    frames = []
    for rows in windows:
        hashes, ts, out = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
        frames.append(
            sightings.number(
                np.array(hashes, np.uint64), np.array(ts, np.int64), np.array(out, bool)
            ).to_list()
        )
    return frames


OUT, IN = True, False


def test_a_local_packet_counts_once():
    assert number([[(7, 1, OUT), (7, 2, IN), (8, 3, OUT), (8, 4, IN)]]) == [[1, 1, 2, 2]]


def test_remote_packets_count_each():
    assert number([[(7, 1, OUT), (8, 2, IN), (9, 3, OUT)]]) == [[1, 2, 3]]


def test_equal_packets_pair_in_order():
    rows = [(7, 1, OUT), (7, 2, OUT), (7, 3, IN), (7, 4, IN), (7, 5, IN)]
    assert number([rows]) == [[1, 2, 1, 2, 3]]


def test_a_pair_may_lie_in_two_windows():
    rows = [(7, 1, OUT), (8, 2, OUT), (8, 3, IN), (7, 4, IN), (7, 5, IN)]
    for cut in range(len(rows) + 1):
        assert list(itertools.chain(*number([rows[:cut], rows[cut:]]))) == [1, 2, 2, 1, 3]


def test_what_came_before_it_was_sent_is_another_packet():
    assert number([[(7, 1, IN), (7, 2, OUT)]]) == [[1, 2]]


def test_a_late_twin_is_a_packet_of_its_own():
    assert number([[(7, 0, OUT), (9, CARRY_NS + 1, OUT)], [(7, CARRY_NS + 2, IN)]]) == [[1, 2], [3]]


IPV4 = bytes.fromhex(
    "45000028abcd40004006 7ce8 7f000001 7f000001 1f90 c000 00000001 00000002 5010 0200 fe1c 0000"
)


@pytest.mark.parametrize("at", [8, 10, 11, 36, 37])
def test_what_changes_on_the_way_does_not_matter(at):
    changed = bytearray(IPV4)
    changed[at] ^= 0x55
    data = np.frombuffer(IPV4 + changed, np.uint8)
    first, second = packet_hashes(data, np.array([0, 40]), np.array([40, 40]))
    assert first == second


@pytest.mark.parametrize("at", [4, 12, 20, 24, 33])
def test_everything_else_does(at):
    changed = bytearray(IPV4)
    changed[at] ^= 0x55
    data = np.frombuffer(IPV4 + changed, np.uint8)
    first, second = packet_hashes(data, np.array([0, 40]), np.array([40, 40]))
    assert first != second
