"""Compiled kernels never outlive their source, and are kept in a place that is ours."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stratokit import kernel_cache, kernel_code, kernel_compiler, kernel_objects, kernels

ROOT = Path(__file__).parents[1]

CALLER = """
from stratokit.callee import value
from stratokit.constants import (
    ADDED,
)
from stratokit.kernels import kernel

@kernel
def answer():
    return value() + ADDED
"""
CALLEE = """
from stratokit.kernels import routine

@routine
def value():
    return {}
"""
ASIDE = """
from stratokit.kernels import kernel

@kernel
def other():
    return 7
"""
PROGRAM = """
import stratokit.aside, stratokit.caller as c
from stratokit import kernel_cache
print(c.answer() + 0 * stratokit.aside.other(), kernel_cache.parent())
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of the same name with little but three kernels, one calling another."""
    package = tmp_path / "stratokit"
    package.mkdir()
    for module in (kernel_cache, kernel_code, kernel_compiler, kernel_objects, kernels):
        shutil.copy(module.__file__, package)
    (package / "__init__.py").write_text("")
    (package / "caller.py").write_text(CALLER)
    (package / "callee.py").write_text(CALLEE.format(1))
    (package / "constants.py").write_text("ADDED = 10\n")
    (package / "aside.py").write_text(ASIDE)
    return package


def answer(package: Path, **environment: str) -> tuple[int, Path]:
    known = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "PYTHONPATH")
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=package.parent,
        env=known | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    value, place = done.stdout.split()
    return int(value), Path(place)


def compiled(place: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in place.rglob("*.nbc")}


def test_a_kernel_is_compiled_anew_when_what_it_takes_from_elsewhere_has_changed(package: Path) -> None:
    assert answer(package)[0] == 11
    value, place = answer(package)
    assert (value, place) == (11, package / "__pycache__" / "kernels")
    first = compiled(place)
    assert {name.partition("-")[0] for name in first} == {"caller", "callee", "aside"}
    (package / "callee.py").write_text(CALLEE.format(2))
    assert answer(package)[0] == 12
    second = compiled(place) - first
    assert {name.partition("-")[0] for name in second} == {"caller", "callee"}  # the third has not changed
    (package / "constants.py").write_text("ADDED = 20\n")
    assert answer(package)[0] == 22
    assert {name.partition("-")[0] for name in compiled(place) - first - second} == {"caller"}


def test_kernels_of_a_week_ago_go_when_there_are_new_ones(package: Path) -> None:
    _, place = answer(package)
    old = {path.name.partition("-")[0]: path for path in place.iterdir()}
    for path in old.values():
        os.utime(path, (0, 0))
    (package / "callee.py").write_text(CALLEE.format(2))
    answer(package)
    assert not old["caller"].exists()
    assert not old["callee"].exists()
    assert old["aside"].exists()


def test_a_place_that_the_user_named_is_used(package: Path, tmp_path: Path) -> None:
    assert answer(package, NUMBA_CACHE_DIR=str(tmp_path / "mine")) == (11, tmp_path / "mine")
    assert compiled(tmp_path / "mine")


def test_declarations_count_where_they_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from stratokit.formats import events  # declares what it unpacks by schemas/
    from stratokit.streams import tcp_state  # does not

    fingerprint = kernel_cache.fingerprint.__wrapped__
    before = {module: fingerprint(module.__file__) for module in (events, tcp_state)}
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    with (tmp_path / "schemas" / "counters.toml").open("a") as file:
        file.write("# changed\n")
    monkeypatch.setattr(kernel_cache, "_DECLARATIONS", (str(tmp_path / "schemas"),))
    kernel_cache._declarations.cache_clear()
    assert fingerprint(events.__file__) != before[events]
    assert fingerprint(tcp_state.__file__) == before[tcp_state]
    kernel_cache._declarations.cache_clear()


@pytest.fixture
def no_cache() -> Iterator[None]:
    kernel_cache.parent.cache_clear()
    yield
    kernel_cache.parent.cache_clear()


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("writable", [True, False])
def test_without_a_writable_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    home, shared = tmp_path / "home", tmp_path / "tmp"
    shared.mkdir()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: str(shared))
    refused = [str(kernel_cache.PACKAGE), *([] if writable else [str(home)])]
    can_make = kernel_cache._can_make
    monkeypatch.setattr(
        kernel_cache, "_can_make", lambda path: not path.startswith(tuple(refused)) and can_make(path)
    )
    place = Path(kernel_cache.parent())
    if writable:
        assert place.parent == home / "stratokit"
    else:
        assert place.parent == shared / f"stratokit-{os.getuid()}"
        assert place.parent.stat().st_mode & 0o777 == 0o700


def decorated(tree: ast.AST, *names: str) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(word, ast.Name) and word.id in names for word in node.decorator_list
        ):
            yield node


ROUTINES = ("routine", "lean_routine", "lean_part", "part", "inlined")


def test_nothing_but_kernels_calls_a_routine() -> None:
    """It has no way in from Python: such a call would end the process."""
    trees = {
        path: ast.parse(path.read_text())
        for folder in ("stratokit", "tests", "tools", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    routines = {(path, node.name) for path, tree in trees.items() for node in decorated(tree, *ROUTINES)}
    assert len(routines) > 100
    for path, tree in trees.items():
        compiled = {
            id(inner)
            for node in decorated(tree, "kernel", "lean_kernel", *ROUTINES)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or id(node) in compiled:
                continue
            function = node.func
            if isinstance(function, ast.Name):
                name, module = function.id, None
            elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                name, module = function.attr, function.value.id
            else:
                continue
            for home, routine in routines:
                if name != routine:
                    continue
                here = home == path and module is None
                imported = re.search(rf"from [\w.]*\b{home.stem} import [^#]*?\b{name}\b", path.read_text())
                assert not here, f"{path}:{node.lineno} calls {name}"
                assert module or not imported, f"{path}:{node.lineno} calls {name}"
                assert module != home.stem, f"{path}:{node.lineno} calls {module}.{name}"
