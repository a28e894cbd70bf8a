"""`stratokit report`: the JSON contract, text, HTML, filters, limits."""

from __future__ import annotations

import json

import pytest
import synthetic
from synthetic import MS, T0

SECTIONS = [
    *(
        "findings",
        "protocols",
        "services",
        "conversations",
        "tcp",
        "drops",
        "dns",
        "http",
        "tls",
        "latency",
        "timeline",
        "slowest",
        "syscalls",
    ),
    *("files", "socket_io", "processes"),
]


def times(value: object) -> list[object]:
    """Values of all keys that end as times and durations do, wherever they stand."""
    if isinstance(value, dict):
        own = [v for k, v in value.items() if k.endswith(("_ns", "_ts")) and k != "columns"]
        return own + [t for v in value.values() for t in times(v)]
    return [t for v in value for t in times(v)] if isinstance(value, list) else []


def test_json_is_the_object_that_is_promised(stratokit, shop):
    done = stratokit("report", shop, "--format", "json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert [name for name in report if name in ("capture", "losses", *SECTIONS)] == list(report)
    assert list(report)[:2] == ["capture", "losses"]
    assert [name for name in report if name not in ("capture", "losses")] == SECTIONS
    for name in ("losses", *SECTIONS):
        assert set(report[name]) == {"columns", "rows"}, name
        for row in report[name]["rows"]:
            assert list(row) == report[name]["columns"], name
    assert all(value is None or isinstance(value, int) for value in times(report))
    assert (report["capture"]["first_ts"], report["capture"]["last_ts"]) == (T0, T0 + 281 * MS)
    assert report["losses"]["rows"] == []


def test_json_is_the_same_every_time(stratokit, shop):
    assert (
        stratokit("report", shop, "--format", "json").out == stratokit("report", shop, "--format", "json").out
    )


def test_text_has_every_section_and_ends_with_losses(stratokit, shop):
    done = stratokit("report", shop)
    assert (done.code, done.err) == (0, "")
    titles = ["Protocols", "Conversations", "TCP", "DNS", "HTTP", "Latency", "System calls", "Processes"]
    places = [done.out.index(f"\n{title}  ") for title in titles]
    assert places == sorted(places)
    assert done.out.endswith("Nothing was lost.\n")


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_line_of_the_text_is_wider_than_the_terminal(stratokit, shop, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = stratokit("report", shop).out.splitlines()
    # The path of the file stays whole, so that it can be copied.
    assert max(len(line) for line in lines if not line.startswith("file")) <= width


def test_only_some_sections(stratokit, shop):
    report = json.loads(stratokit("report", shop, "--only", "http,dns", "--format", "json").out)
    assert list(report) == ["capture", "losses", "dns", "http"]
    done = stratokit("report", shop, "--only", "htpt")
    assert (done.code, done.out) == (2, "")
    told = done.err.partition("there is no section 'htpt'; there are ")[2].strip().split(", ")
    assert set(told) == {*SECTIONS, "handshakes", "dns_errors", "heat", "endpoints", "error_shares"}


def test_losses_are_told_in_sentences(stratokit, tmp_path):
    lossy = synthetic.small_shop(tmp_path / "lossy.parquet", loss=[synthetic.loss("packet_no_space", 7)])
    done = stratokit("report", lossy, "--only", "protocols")
    assert (
        "lost  7 packets were not recorded because the ring buffer was full; a larger --buffer helps"
        in done.out
    )
    row = json.loads(stratokit("report", lossy, "--format", "json").out)["losses"]["rows"][0]
    assert (row["counter"], row["amount"], row["is_loss"]) == ("packet_no_space", 7, True)
    assert row["last_ts"] - row["first_ts"] == 1000 * MS


def test_where_restricts_every_section_it_can(stratokit, shop):
    done = stratokit("report", shop, "--where", "http.response.code >= 500", "--format", "json")
    report = json.loads(done.out)
    assert report["capture"]["where"] == "http.response.code >= 500"
    assert [row["path"] for row in report["http"]["rows"]] == ["/cart"]
    assert [row["flow_id"] for row in report["conversations"]["rows"]] == [2]
    assert report["dns"]["rows"] == []
    assert report["syscalls"]["note"] == "the filter says nothing about syscalls"
    assert report["syscalls"]["rows"] == []
    assert report["syscalls"]["columns"][:2] == ["comm", "syscall"]


def test_where_by_process_reaches_calls_and_traffic(stratokit, shop):
    report = json.loads(stratokit("report", shop, "--where", 'proc.name == "nginx"', "--format", "json").out)
    assert [row["syscall"] for row in report["syscalls"]["rows"]] == ["epoll_wait"]
    assert report["conversations"]["rows"] == []


def test_a_wrong_filter_is_usage(stratokit, shop):
    done = stratokit("report", shop, "--where", "http.response.code >=")
    assert (done.code, done.out) == (2, "")
    assert "the filter ends here" in done.err


def test_html_needs_nothing_else(stratokit, shop, tmp_path):
    path = tmp_path / "report.html"
    assert stratokit("report", shop, "-o", path).code == 0
    page = path.read_text()
    assert page.startswith("<!doctype html>")
    assert "http://" not in page
    assert "https://" not in page
    assert "shop.example" in page
    assert "/cart" in page


def test_what_was_not_recorded_is_not_the_same_as_nothing(stratokit, tmp_path):
    options = {"packets": True, "sockets": False, "syscalls": "none"}
    path = synthetic.write(tmp_path / "quiet.parquet", {"options": json.dumps(options)})
    report = json.loads(stratokit("report", path, "--format", "json").out)
    assert report["syscalls"]["note"] == "not recorded: this capture has no syscalls"
    assert report["http"] == {"columns": report["http"]["columns"], "rows": []}
    text = stratokit("report", path).out
    assert "not recorded: this capture has no syscalls" in text
    assert "nothing of this kind in the capture" in text


def test_rows_are_limited_for_people(stratokit, shop):
    done = stratokit("report", shop, "--only", "conversations", "--limit", "1")
    assert "1 of 3 shown; --limit 0 shows all" in done.out
    done = stratokit("report", shop, "--only", "conversations", "--limit", "1", "--format", "json")
    assert len(json.loads(done.out)["conversations"]["rows"]) == 1


def test_a_failed_report_leaves_no_output(stratokit, shop, tmp_path):
    path = tmp_path / "out.json"
    assert stratokit("report", shop, "--only", "nope", "-o", path).code == 2
    assert not path.exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_names_from_a_capture_cannot_steer_the_terminal(stratokit, tmp_path):
    rows = [synthetic.syscall(T0, "openat", comm="\x1b[2Jevil[bold]", path="/x\x07")]
    out = stratokit("report", synthetic.write(tmp_path / "evil.parquet", syscall=rows)).out
    assert "\x1b" not in out
    assert "\\x1b[2Jevil[bold]" in out


def test_help_names_every_section(stratokit):
    told = " ".join(stratokit("report", "--help").out.split())
    assert f"Sections: {', '.join(SECTIONS)}; then what was lost." in told
    assert "Only where they are named: handshakes, dns_errors, heat, endpoints, error_shares." in told
