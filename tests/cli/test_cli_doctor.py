"""`stratokit doctor`: how findings are shown; what is found has tests beside the recorder."""

from __future__ import annotations

import json

import pytest

from stratokit.record.doctor import Check

GOOD = Check("recording", "bcc", ok=True, found="version 0.26", remedy="")
BAD = Check("packets", "CAP_NET_ADMIN", ok=False, found="missing", remedy="run as root")


@pytest.mark.parametrize(("checks", "code"), [([GOOD], 0), ([GOOD, BAD], 1)])
def test_the_exit_code_says_whether_everything_can_be_recorded(stratokit, monkeypatch, checks, code):
    monkeypatch.setattr("stratokit.record.doctor.examine", lambda: checks)
    done = stratokit("doctor")
    assert done.code == code
    assert "ok    recording: bcc" in done.out
    assert ("FAIL  packets: CAP_NET_ADMIN  missing" in done.out) is bool(code)
    assert ("run as root" in done.out) is bool(code)


def test_doctor_as_json(stratokit, monkeypatch):
    monkeypatch.setattr("stratokit.record.doctor.examine", lambda: [BAD])
    done = stratokit("doctor", "--json")
    assert done.code == 1
    assert json.loads(done.out) == [
        {
            "feature": "packets",
            "name": "CAP_NET_ADMIN",
            "ok": False,
            "found": "missing",
            "remedy": "run as root",
        }
    ]
