"""A conversation that several devices see is followed at one of them."""

import polars as pl

from stratokit.engine.ingest.watch_points import WatchPoints

SCHEMA = {"flow_id": pl.UInt64, "side": pl.Boolean, "device": pl.UInt64}


def followed(points, *frames):
    return points.followed(pl.DataFrame(frames, schema=SCHEMA, orient="row")).to_list()


def test_forwarded_both_ways_at_the_device_that_saw_it_first():
    """In at 1 and out of 2, and back: what comes back is seen at 2 first."""
    points = WatchPoints()
    window = [(5, True, 1), (5, True, 2), (5, False, 2), (5, False, 1)]
    assert followed(points, *window) == [True, False, False, True]
    assert followed(points, *reversed(window)) == [True, False, False, True]


def test_a_device_that_sees_one_direction_only_is_not_taken():
    """What comes through a member of a bond is seen at the bond too, and leaves through another member."""
    window = [(0, True, 1), (0, True, 9), (0, False, 9), (0, False, 2)]
    assert followed(WatchPoints(), *window) == [False, True, True, False]


def test_an_answer_in_a_later_window_is_followed_where_the_question_was():
    points = WatchPoints()
    assert followed(points, (0, True, 1), (0, True, 2)) == [True, False]
    assert followed(points, (0, False, 2), (0, False, 1)) == [False, True]
    assert followed(points, (0, True, 2), (0, True, 1)) == [False, True]


def test_an_answer_that_goes_another_way_is_followed_there():
    points = WatchPoints()
    assert followed(points, (0, True, 1)) == [True]
    assert followed(points, (0, False, 2), (0, False, 3)) == [True, False]


def test_frames_without_a_conversation_belong_to_none():
    assert followed(WatchPoints(), (None, True, 1), (3, True, 1)) == [False, True]
