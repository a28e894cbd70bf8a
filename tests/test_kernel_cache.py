"""Compiled kernels never outlive their source, and are kept in a place that is ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stratokit import kernel_cache

CALLER = """
from numba import njit
from stratokit.callee import value

@njit(cache=True)
def answer():
    return value()
"""
CALLEE = """
from numba import njit

@njit(cache=True)
def value():
    return {}
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of the same name with nothing but two kernels, one calling the other."""
    package = tmp_path / "stratokit"
    package.mkdir()
    shutil.copy(kernel_cache.__file__, package)
    (package / "__init__.py").write_text("from stratokit import kernel_cache\nkernel_cache.choose()\n")
    (package / "caller.py").write_text(CALLER)
    (package / "callee.py").write_text(CALLEE.format(1))
    return package


def answer(package: Path, **environment: str) -> tuple[int, str]:
    program = "import os, stratokit.caller as c; print(c.answer(), os.environ['NUMBA_CACHE_DIR'])"
    known = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "PYTHONPATH")
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=package.parent,
        env=known | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    value, place = done.stdout.split()
    return int(value), place


def test_a_kernel_is_compiled_anew_when_one_that_it_calls_has_changed(package: Path) -> None:
    first = answer(package)
    assert first == answer(package)
    compiled = sorted(Path(first[1]).rglob("*.nbc"))
    assert len(compiled) == 2
    (package / "callee.py").write_text(CALLEE.format(2))
    assert answer(package)[0] == 2
    assert Path(first[1]).exists()  # a program that began earlier may still use it


def test_kernels_of_a_week_ago_go_when_there_are_new_ones(package: Path) -> None:
    old = Path(answer(package)[1])
    (package / "callee.py").write_text(CALLEE.format(2))
    os.utime(old, (0, 0))
    new = Path(answer(package)[1])
    assert new.exists()
    assert not old.exists()


def test_files_without_kernels_change_nothing(package: Path) -> None:
    before = kernel_cache.fingerprint(str(package))
    (package / "words.py").write_text("WORDS = 1\n")
    assert kernel_cache.fingerprint(str(package)) == before
    (package / "inner").mkdir()
    (package / "inner" / "more.py").write_text(CALLEE.format(3))
    assert kernel_cache.fingerprint(str(package)) != before


def test_a_place_that_the_user_named_is_used(package: Path, tmp_path: Path) -> None:
    assert answer(package, NUMBA_CACHE_DIR=str(tmp_path / "mine")) == (1, str(tmp_path / "mine"))


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
    kernel_cache.choose()
    place = Path(os.environ.pop("NUMBA_CACHE_DIR"))
    if writable:
        assert place.parent == home / "stratokit"
    else:
        assert place.parent == shared / f"stratokit-{os.getuid()}"
        assert place.parent.stat().st_mode & 0o777 == 0o700


def test_programs_of_others_do_not_get_our_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    kernel_cache.choose()
    assert "NUMBA_CACHE_DIR" in os.environ
    assert "NUMBA_CACHE_DIR" not in kernel_cache.others_environment()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/mine")
    assert kernel_cache.others_environment()["NUMBA_CACHE_DIR"] == "/mine"
