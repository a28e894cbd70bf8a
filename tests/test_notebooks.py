"""Every notebook runs from its first cell to its last, and what it shows can be shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import polars as pl
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def run(source: str, names: dict) -> object:
    """Run a cell; what stands alone in its last line is its result, as in Jupyter."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_there_are_the_five():
    names = ["dns-outage", "first-look", "latency-hunt", "tcp-troubleshooting", "your-own-protocol"]
    assert [path.stem for path in NOTEBOOKS] == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    cells = json.loads(path.read_text())["cells"]
    names: dict = {"__name__": "__main__"}
    shown = [run("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"]
    assert all(cell.get("outputs", []) == [] for cell in cells), "outputs are not kept in the repository"
    for result in shown:
        if hasattr(result, "_repr_html_"):
            assert "<" in result._repr_html_()
    charts = [result for result in shown if hasattr(result, "_repr_mimebundle_")]
    assert all(chart._repr_mimebundle_() for chart in charts)
    frames = [result for result in shown if isinstance(result, pl.DataFrame)]
    assert all(frame.height > 0 for frame in frames)
