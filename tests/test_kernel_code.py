"""Machine code that was kept runs without numba, and only for arguments of its types."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stratokit import kernel_cache, kernel_code, kernel_compiler, kernel_objects, kernels

SOURCE = '''
from typing import NamedTuple
import numpy as np
from stratokit.kernels import kernel, routine

class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray

@routine
def half(value):
    return value // 2

@kernel
def total(values, times):
    """Of arrays of numbers."""
    found = 0
    for i in range(len(values)):
        found += values[i]
    return found * times

@kernel
def halves(values):
    out = np.empty(len(values), np.int32)
    for i in range(len(values)):
        out[i] = half(values[i])
    return out

@kernel
def both(pair, rows):
    rows["b"][0] = 7
    return pair.left[0] + pair.right[0], rows["a"][0]

@kernel
def refused(values):
    if len(values) > 2:
        raise ValueError("too many")
    return len(values)

@kernel
def power(x, y):
    return x ** y
'''
RUN = """
import sys
import numpy as np
from stratokit.things import *
values = np.arange(10)
rows = np.zeros(3, [("a", "<i4"), ("b", "u1")])
rows["a"] = 5
fixed = values.view()
fixed.flags.writeable = False
found = [
    total(values, 2), halves(values).tolist(), both(Pair(values[3:], fixed), rows), int(rows["b"][0]),
    refused(np.ones((2, 2), int)[0]), power(2.0, 0.5), total(np.arange(4, dtype=np.uint8), 3),
]
numba = "numba" in sys.modules
try:
    refused(values)
except ValueError as error:
    found.append(str(error))
print(repr(found))
print(numba)
"""
# Kernels that are compiled in this process.
TOLD = """
import sys
from stratokit import kernel_compiler
compiled = kernel_compiler.compiled
def told(kernel, *more):
    print(kernel.__name__, file=sys.stderr)
    return compiled(kernel, *more)
kernel_compiler.compiled = told
"""
EXPECTED = repr([90, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], (3, 5), 7, 2, 2**0.5, 18, "too many"])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the same name, whose kernels were compiled."""
    package = tmp_path_factory.mktemp("code") / "stratokit"
    package.mkdir()
    for module in (kernel_cache, kernel_code, kernel_compiler, kernel_objects, kernels):
        shutil.copy(module.__file__, package)
    (package / "__init__.py").write_text("")
    (package / "things.py").write_text(SOURCE)
    assert run(package) == (EXPECTED, True)
    return package


def run(package: Path, code: str = RUN, **environment: str) -> tuple[str, bool]:
    """What it prints, and whether numba was loaded."""
    done = started(package, code, **environment)
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    found, numba = output.splitlines()
    return found, numba == "True"


def started(package: Path, code: str, **environment: str) -> subprocess.Popen[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTHON"))}
    return subprocess.Popen(
        [sys.executable, "-B", "-c", code],  # Python takes two edits within a second for one
        cwd=package.parent,
        env=known | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kept(package: Path) -> list[Path]:
    return sorted(package.rglob("*.code"))


def test_the_second_use_loads_no_numba(package: Path) -> None:
    names = [path.name.partition("-")[0] for path in kept(package)]
    assert {*names} == {"both", "halves", "power", "refused", "total"}
    assert run(package) == (EXPECTED, False)


CALLS = {
    "total(values[::2], 2)": 40,  # gaps
    "total(values.astype('>i8'), 2)": "TypingError",  # numba has no numbers of the other byte order
    "total(values.astype(np.float32), 2)": 90.0,
    "total(values, np.int32(2))": 90,
    "total(values, times=2)": 90,
    "total(values, 2.5)": 112.5,
    "total((1, 2, 3), 2)": 12,
    "total(values)": "TypeError",
    "total(values, 2, 3)": "TypeError",
    "total(values, 1 << 70)": "OverflowError",
    "total(None, 2)": "TypingError",
    "total(values, {})": "TypingError",
    "total(np.frombuffer(bytes(9), np.uint8)[1:].view(np.int64), 2)": 0,  # not aligned
    "both(Pair(values, values), np.zeros(1, [('a', '<i4')]))": "TypingError",
    "total(values, 2)": 90,
}
CALL = """
import sys
import numpy as np
from stratokit.things import *
values = np.arange(10)
found = {}
for call in sys.stdin.read().splitlines():
    try:
        found[call] = eval(call)
    except Exception as error:
        found[call] = type(error).__name__
print(repr(found))
print("numba" in sys.modules)
"""


def test_arguments_of_other_types_are_numbas_affair(package: Path) -> None:
    for _ in range(2):  # the second time some of them were kept
        process = started(package, CALL)
        output, errors = process.communicate("\n".join(CALLS), timeout=300)
        assert output.splitlines() == [repr(CALLS), "True"], errors


def test_kinds_tell_apart_what_numba_does() -> None:
    values = np.arange(6)
    fixed = values.view()
    fixed.flags.writeable = False
    rows = np.zeros(2, [("a", "<i4"), ("b", "u1")])
    other = [
        values, fixed, values[::2], values.reshape(2, 3), values.reshape(2, 3).T, values.astype(np.int32),
        values.astype(">i8"), rows, rows[["a"]], rows.astype([("a", "<i4"), ("c", "u1")]), 1, 1.0, True,
        np.int64(1), np.uint8(1), (values,), (values, 1), ((values,),), (1, 2),
        values.astype("M8[ns]"), values.astype("M8[us]"),
    ]  # fmt: skip
    kinds = [kernels._kinds((value,)) for value in other]
    assert len({*kinds}) == len(other)
    assert len({kernel_code._text(kind) for kind in kinds if kind}) == len(other)
    assert kernels._kinds((values[2:], 5)) == kernels._kinds((np.zeros(0, np.int64), -(1 << 63)))
    assert kernels._kinds((values.reshape(1, 6),)) == kernels._kinds((values.reshape(6, 1),))
    for strange in (1 << 63, -(1 << 63) - 1, "text", b"bytes", [1], np.ma.array([1]), (1, "text"), {}, int):
        assert kernels._kinds((strange,)) is None


@pytest.mark.parametrize("kind", ["*.code", "*.numba", "*.*"])
def test_files_that_are_no_more_what_they_were_are_made_anew(package: Path, kind: str) -> None:
    folder = next(package.rglob("*.code")).parent
    whole = {path: path.read_bytes() for path in sorted(folder.glob(kind))}
    damages = (
        lambda _: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda _: b"something else " * 100,
        lambda content: content[:23] + b"no pickle",
    )
    assert len(whole) >= len(damages)
    for number, (path, content) in enumerate(whole.items()):
        path.write_bytes(damages[number % len(damages)](content))
    if kind == "*.numba":  # which is only looked at where there is no machine code
        for path in folder.glob("*.code"):
            path.unlink()
    assert run(package) == (EXPECTED, True)
    assert run(package) == (EXPECTED, False)
    for path, content in whole.items():  # also those that nothing asks for as long as there are others
        path.write_bytes(content)


def test_an_edit_compiles_anew(package: Path) -> None:
    source = package / "things.py"
    source.write_text(SOURCE.replace("value // 2", "value // 3"))
    expected = EXPECTED.replace("[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]", "[0, 0, 0, 1, 1, 1, 2, 2, 2, 3]")
    assert [run(package), run(package)] == [(expected, True), (expected, False)]
    source.write_text(SOURCE)
    assert run(package) == (EXPECTED, False)


def test_other_settings_and_processors_have_code_of_their_own(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(package, NUMBA_BOUNDSCHECK="1") == (EXPECTED, True)
    assert run(package, NUMBA_BOUNDSCHECK="1") == (EXPECTED, False)
    build = kernel_code._build.__wrapped__
    before = build()
    assert before is not None
    assert "flags" in before
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert build() != before
    monkeypatch.delenv("NUMBA_CPU_NAME")
    assert build() == before
    monkeypatch.setattr(np, "__version__", "0")
    assert build() != before


def test_kernels_can_be_stepped_through(package: Path) -> None:
    assert run(package, RUN, NUMBA_DISABLE_JIT="1")[1]


def test_two_at_once_in_a_place_of_the_users(package: Path, tmp_path: Path) -> None:
    both = [started(package, TOLD + RUN, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    compiled = []
    for process in both:
        output, errors = process.communicate(timeout=300)
        assert output.splitlines() == [EXPECTED, "True"]
        compiled += errors.split()
    assert sorted(compiled) == ["both", "halves", "power", "refused", "total", "total"]  # each once
    assert len(list(tmp_path.rglob("*.code"))) == 6
    assert not list(tmp_path.rglob("*.code.*"))
    assert run(package, NUMBA_CACHE_DIR=str(tmp_path)) == (EXPECTED, False)


def test_where_nothing_can_be_kept(package: Path, tmp_path: Path) -> None:
    refused = "from stratokit import kernel_code\nkernel_code.save = None\n"
    assert run(package, refused + RUN, NUMBA_CACHE_DIR=str(tmp_path)) == (EXPECTED, True)
    assert run(package, refused + RUN) == (EXPECTED, False)


def test_objects_that_are_not_understood_are_not_kept() -> None:
    assert kernel_objects.linked(b"\x7fELF\x02\x01" + bytes(200), "entry") is None
    assert kernel_objects.linked(b"MZ" + bytes(200), "entry") is None
