"""`stratokit info`."""

from __future__ import annotations

import json

import synthetic
from synthetic import MS, T0


def test_info_says_what_is_in_the_file(stratokit, shop):
    done = stratokit("info", shop)
    assert done.code == 0
    assert done.err == ""
    assert "web-1, Debian 12, kernel 6.18.5, x86_64" in done.out
    assert "2026-01-01 00:00:00.281000 UTC, 281 ms" in done.out
    assert "14 packets, 3 processes, 1 socket, 4 syscalls" in done.out
    assert done.out.endswith("Nothing was lost.\n")


def test_info_as_json(stratokit, shop):
    facts = json.loads(stratokit("info", shop, "--json").out)
    assert facts["host"]["hostname"] == "web-1"
    assert (facts["first_ts"], facts["last_ts"], facts["duration_ns"]) == (T0, T0 + 281 * MS, 281 * MS)
    assert facts["rows"] == {"interface": 1, "packet": 14, "process": 3, "socket": 1, "syscall": 4}
    assert facts["losses"] == {}
    assert facts["files"][0]["format"] == "parquet"


def test_info_tells_losses(stratokit, tmp_path):
    lossy = synthetic.small_shop(
        tmp_path / "lossy.parquet",
        loss=[synthetic.loss("packet_no_space", 1234), synthetic.loss("packet_cut", 5)],
    )
    done = stratokit("info", lossy)
    assert "lost  1,234 packets were not recorded because the ring buffer was full" in done.out
    assert "note  5 packets were cut" in done.out
    assert "Nothing was lost" not in done.out


def test_info_of_several_files_adds_up(stratokit, shop, tmp_path):
    other = synthetic.small_shop(tmp_path / "other.parquet")
    facts = json.loads(stratokit("info", shop, other, "--json").out)
    assert facts["rows"]["packet"] == 28
    assert len(facts["files"]) == 2


def test_a_capture_without_rows(stratokit, tmp_path):
    done = stratokit("info", synthetic.write(tmp_path / "none.parquet"))
    assert done.code == 0
    assert "rows    none" in done.out


def test_a_file_that_counts_no_losses_says_so(stratokit, tmp_path):
    done = stratokit("info", synthetic.write(tmp_path / "imported.parquet", {}))
    assert "does not say whether anything was lost" in done.out
