"""Two captures made by hand: what changed by far is told with its probability, what may be chance is not."""

from __future__ import annotations

import json

import pytest
import synthetic
from synthetic import MS, T0, Network, Side

from stratokit.engine.capture import Capture
from stratokit.reports.diff import diff


def capture(tmp_path, name, waits_ms, statuses=(200,), peer="10.0.0.2", path="/a", body=b"hello", **more):
    """One connection with a request for each wait."""
    net = Network()
    exchanges = [
        (MS, synthetic.http_request(path), int(wait * MS), synthetic.http_response(status, body))
        for wait, status in zip(waits_ms, statuses * len(waits_ms), strict=False)
    ]
    net.tcp(Side("10.0.0.1", 40001, 10, "curl"), Side(peer, 80), T0, exchanges)
    path = synthetic.write(tmp_path / f"{name}.parquet", packet=net.rows, **more)
    return Capture.open(path)


def changes(before, after):
    frame = diff(before, after).sections[0].frame
    return {(row["change"], row["kind"], row["whom"]): row for row in frame.to_dicts()}


BEFORE = [10 + k / 10 for k in range(20)]


def test_what_is_slower_has_the_probability_of_the_rank_sum_test(tmp_path):
    """All 20 are later than all 20: U = 400, (400 - 200) / sqrt(20 * 20 * 41 / 12) = 5.41 deviations."""
    found = changes(capture(tmp_path, "a", BEFORE), capture(tmp_path, "b", [2 * ms for ms in BEFORE]))
    (row,) = found.values()
    assert (row["change"], row["kind"], row["whom"]) == ("slower", "http", "GET shop.example/a")
    assert row["p_value"] == pytest.approx(6.30e-8, rel=0.01)
    assert (row["p50_before_ns"], row["p50_after_ns"]) == (int(10.9 * MS), int(21.8 * MS))
    assert row["finding"] == "GET shop.example/a: the median of 20 requests is 21.8 ms, before 10.9 ms."
    faster = changes(capture(tmp_path, "c", [2 * ms for ms in BEFORE]), capture(tmp_path, "d", BEFORE))
    assert [row["change"] for row in faster.values()] == ["faster"]


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        [1.1 * ms for ms in BEFORE],  # sure, but a tenth does not matter
        [10, 10, 10, 50, 50, 50],  # large, but six of them may be chance
        [500, 500, 500, 500],  # too few
    ],
)
def test_what_may_be_chance_or_does_not_matter_is_not_told(tmp_path, after):
    assert changes(capture(tmp_path, "a", BEFORE), capture(tmp_path, "b", after)) == {}


def test_what_fails_more_often(tmp_path):
    """10 of 20 against none of 20: 0.5 / sqrt(0.25 * 0.75 * 0.1) = 3.65 deviations."""
    (row,) = changes(capture(tmp_path, "a", BEFORE), capture(tmp_path, "b", BEFORE, (200, 503))).values()
    assert (row["change"], row["errors_before"], row["errors_after"]) == ("failing", 0, 10)
    assert row["p_value"] == pytest.approx(2.61e-4, rel=0.01)
    assert row["finding"] == "GET shop.example/a: 10 of 20 requests failed, before 0 of 20."
    few = capture(tmp_path, "c", BEFORE, (200,) * 17 + (503,) * 3)
    assert changes(capture(tmp_path, "d", BEFORE), few) == {}


def test_servers_and_programs_that_come_and_go(tmp_path):
    started = [synthetic.process(T0, "exec", path="/usr/bin/job")]
    before = capture(tmp_path, "a", [5], path="/a")
    after = capture(tmp_path, "b", [5], peer="10.0.0.3", process=started)
    assert set(changes(before, after)) == {
        ("new", "peer", "10.0.0.3:80"),
        ("new", "process", "/usr/bin/job"),
        ("gone", "peer", "10.0.0.2:80"),
    }


def test_traffic_that_doubled(tmp_path):
    before = capture(tmp_path, "a", [50] * 4, body=b"x" * 30_000)
    after = capture(tmp_path, "b", [50] * 4, body=b"x" * 65_000)
    (row,) = changes(before, after).values()
    assert (row["change"], row["whom"]) == ("more", "10.0.0.2:80")
    assert row["bytes_after"] > 2 * row["bytes_before"] > 200_000


def test_a_capture_beside_itself_has_not_changed(tmp_path):
    shop = Capture.open(synthetic.small_shop(tmp_path / "shop.parquet"))
    assert diff(shop, shop).sections[0].frame.is_empty()
    assert json.dumps(diff(shop, shop).facts)
