"""The report in a real browser: it runs without complaint, and its tables sort and filter."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess

import pytest
import synthetic

from stratokit.engine.capture import Capture
from stratokit.render import html as html_report
from stratokit.reports.base import Options
from stratokit.reports.run import run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *(
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
    ),
)
# What a person does, in a page that may run it; the results come back in the document.
ACTS = """
const table = document.querySelector("#http ~ .wide table"), found = {};
const column = (name) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
const texts = (name) => [...table.tBodies[0].rows].filter((row) => !row.hidden)
  .map((row) => row.cells[column(name)].textContent);
table.tHead.rows[0].cells[column("p50")].click();
found.longest_first = texts("p50");
table.tHead.rows[0].cells[column("p50")].click();
found.shortest_first = texts("p50");
table.tHead.rows[0].cells[column("path")].dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
found.by_path = texts("path");
const input = table.parentElement.previousElementSibling.querySelector("input");
input.value = "CART get";
input.dispatchEvent(new Event("input"));
found.filtered = texts("path");
found.count = input.nextElementSibling.textContent;
found.wider_than_window = document.documentElement.scrollWidth > innerWidth;
found.width = innerWidth;
(parent || window).document.body.dataset.found = JSON.stringify(found);
"""
_LEAST_WINDOW = 500  # a headless window is never narrower; a frame in it is as narrow as it is told to be


@pytest.fixture
def page(tmp_path):
    out = io.StringIO()
    path = synthetic.small_shop(tmp_path / "shop.parquet")
    html_report.write_report(run(Capture.open(path), options=Options(pictures=True)), out)
    return out.getvalue()


def browse(page, tmp_path, width):
    """(the document after its scripts ran, what the console said)."""
    path = tmp_path / "report.html"
    if width < _LEAST_WINDOW:
        frame = (
            f'<iframe srcdoc="{html.escape(page)}" style="width:{width}px;height:900px;border:0"></iframe>'
        )
        page = f"<!DOCTYPE html><html><body>{frame}</body></html>"
    path.write_text(page)
    profile = tmp_path / f"profile-{width}"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_browser_opens_the_report_without_complaint(page, tmp_path):
    document, console = browse(page, tmp_path, 1280)
    assert not console
    assert document.count('type="search"') == page.count("<table>")
    for drawn in ("Service map", "heat map", "Slowest requests", "over time", "Spread of latency"):
        assert re.search(rf'<svg [^>]*aria-label="[^"]*{drawn}', document), drawn


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize("width", [1280, 400])
def test_tables_sort_and_filter(page, tmp_path, width):
    free = re.sub(r"<meta http-equiv=.*\n", "", page)  # the page lets no script run but its own
    document, console = browse(free.replace("</html>", f"<script>{ACTS}</script></html>"), tmp_path, width)
    assert not console
    escaped = re.search(r'data-found="([^"]*)"', document)
    assert escaped is not None
    found = json.loads(escaped[1].replace("&quot;", '"'))
    assert found == {
        "longest_first": ["250 ms", "5.00 ms"],
        "shortest_first": ["5.00 ms", "250 ms"],
        "by_path": ["/", "/cart"],
        "filtered": ["/cart"],
        "count": "1 of 2 rows",
        "wider_than_window": False,
        "width": width,
    }
