"""Compiled kernels never outlive their source, and are kept in a place that is ours."""

from __future__ import annotations

import ast
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
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
        [sys.executable, "-B", "-c", PROGRAM],  # Python takes two edits within a second for one
        cwd=package.parent,
        env=known | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    value, place = done.stdout.split()
    return int(value), Path(place)


def compiled(place: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in place.rglob("*.numba")}


def test_a_kernel_is_compiled_anew_when_what_it_takes_from_elsewhere_has_changed(package: Path) -> None:
    assert answer(package)[0] == 11
    value, place = answer(package)
    assert (value, place) == (11, package / "__pycache__" / "compiled")
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
    assert answer(package, NUMBA_CACHE_DIR=str(tmp_path / "mine")) == (11, tmp_path / "mine" / "compiled")
    assert compiled(tmp_path / "mine" / "compiled")


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
    refused = (str(kernel_cache.PACKAGE), *([] if writable else [str(home)]))
    made = kernel_cache._made
    monkeypatch.setattr(kernel_cache, "_made", lambda path: None if path.startswith(refused) else made(path))
    place = Path(kernel_cache.parent())
    assert place.parent == (home / "stratokit" if writable else shared / f"stratokit-{os.geteuid()}")
    assert place.stat().st_mode & 0o777 == 0o700


def safe(place: Path) -> bool:
    """Whether kernels would be kept there."""
    return kernel_cache._made(str(place / "compiled")) == str(place.resolve() / "compiled")


def test_what_others_may_write_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    assert safe(folder)
    for mode, kept in ((0o1777, True), (0o777, False), (0o775, False), (0o2755, True), (0o700, True)):
        folder.chmod(mode)
        assert safe(folder) is kept, oct(mode)
        assert safe(folder / "deeper") is kept, oct(mode)
    (tmp_path / "link").symlink_to(folder)
    assert safe(tmp_path / "link")  # it is not followed again
    for mode, kept in ((0o755, False), (0o770, False), (0o700, True)):
        (folder / "compiled").chmod(mode)
        assert safe(folder) is kept, oct(mode)
    kernel_cache.save(str(folder / "compiled" / "file"), pickle.dumps(5))
    assert kernel_cache.load(str(folder / "compiled" / "file")) == 5
    (tmp_path / "file").write_text("")
    assert not safe(tmp_path / "file")
    monkeypatch.setattr(kernel_cache.os, "geteuid", lambda: os.getuid() + 1)  # all this is another user's
    assert not safe(folder)
    assert kernel_cache.load(str(folder / "compiled" / "file")) is None


@pytest.mark.usefixtures("no_cache")
def test_a_place_that_another_user_made_first_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "shared"))
    for name in ("shared", "tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o1777)
    (tmp_path / "shared" / "compiled").mkdir(mode=0o777)
    (tmp_path / "tmp" / f"stratokit-{os.geteuid()}").symlink_to(tmp_path / "shared")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setattr(kernel_cache, "PACKAGE", os.devnull)
    monkeypatch.setattr(kernel_cache.tempfile, "tempdir", str(tmp_path / "tmp"))
    place = Path(kernel_cache.parent())
    assert place.parent.parent == tmp_path / "tmp"
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert not place.parent.is_symlink()
    assert not any((tmp_path / "shared" / "compiled").iterdir())


def test_a_temporary_place_goes_with_the_process(package: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o777)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "compiled").touch()
    value, place = answer(package, XDG_CACHE_HOME="no", HOME="no", TMPDIR=str(tmp_path / "tmp"))
    assert value == 11
    assert place.is_relative_to(tmp_path / "tmp")
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == [f"stratokit-{os.geteuid()}"]


def test_a_file_is_only_what_it_was_saved_as(tmp_path: Path) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    kernel_cache.save(one, pickle.dumps([1] * 1000))
    assert kernel_cache.load(one) == [1] * 1000
    content = Path(one).read_bytes()
    for length in range(len(content)):
        Path(one).write_bytes(content[:length])
        assert kernel_cache.load(one) is None
    for at in range(0, len(content), 7):
        Path(one).write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        assert kernel_cache.load(one) is None
    Path(other).write_bytes(content)
    assert kernel_cache.load(other) is None
    assert kernel_cache.load(str(tmp_path)) is None
    kernel_cache.save(one, pickle.dumps(2))
    assert kernel_cache.load(one) == 2
    kernel_cache.save(str(tmp_path / "nowhere" / "one"), pickle.dumps(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = threading.Event()

    def second() -> None:
        with kernel_cache.alone(str(tmp_path)):
            entered.set()

    waiting = threading.Thread(target=second)
    with kernel_cache.alone(str(tmp_path)):
        waiting.start()
        assert not entered.wait(0.2)
        with kernel_cache.alone(str(tmp_path / "nowhere")):  # which cannot be locked
            pass
        monkeypatch.setattr(kernel_cache, "_PATIENCE_S", 0)
        with kernel_cache.alone(str(tmp_path)):  # who waited long enough goes on
            pass
    assert entered.wait(30)
    waiting.join()


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""


def test_no_room_for_kernels_changes_nothing(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL + PROGRAM],
        cwd=package.parent,
        env={**os.environ, "NUMBA_CACHE_DIR": str(package.parent / "full")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("11 ")
    assert not done.stderr
    assert not [path for path in (package.parent / "full").rglob("*") if path.is_file()]


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
