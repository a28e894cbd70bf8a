"""`stratokit diff`: text, JSON, HTML, and a filter."""

from __future__ import annotations

import json

import synthetic


def test_what_changed_in_each_form(stratokit, shop, tmp_path):
    more = synthetic.process(synthetic.T0, "exec", 77, "job", path="/usr/bin/job")
    other = synthetic.small_shop(tmp_path / "other.parquet", process=[more])
    done = stratokit("diff", shop, other)
    assert (done.code, done.err) == (0, "")
    assert "- /usr/bin/job is a program that was not there before." in done.out
    assert "- /usr/bin/curl is a program that is no longer there." in done.out
    rows = json.loads(stratokit("diff", shop, other, "--format", "json").out)["diff"]["rows"]
    assert [(row["change"], row["whom"]) for row in rows] == [
        ("new", "/usr/bin/job"),
        ("gone", "/usr/bin/curl"),
        ("gone", "/usr/sbin/nginx"),
    ]
    page = tmp_path / "diff.html"
    assert stratokit("diff", shop, other, "-o", page).code == 0
    assert "/usr/bin/job is a program" in page.read_text()


def test_only_what_a_filter_selects(stratokit, shop):
    done = stratokit("diff", shop, shop, "--where", "http.response.code == 500")
    assert done.code == 0
    assert "nothing of this kind in the capture" in done.out


def test_a_missing_file_is_named(stratokit, shop, tmp_path):
    done = stratokit("diff", shop, tmp_path / "absent.parquet")
    assert done.code == 1
    assert "absent.parquet" in done.err
