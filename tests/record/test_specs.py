"""What the kernel program is told about each call."""

import pytest

from stratokit.errors import UsageError
from stratokit.record import specs
from stratokit.schema import load

CALLS = {call.name: call for call in load.syscalls("x86_64").values()}
NAMES = [
    "wanted",
    "args",
    "fd",
    "path",
    "path2",
    "address",
    "address_out",
    "data",
    "data_kind",
    "returns_fd",
    "fd_at_entry",
    "no_return",
    "child_returns",
    "manages",
    "unfiltered",
    "fds",
]


def fields(name):
    values = dict(zip(NAMES, specs.SPEC.unpack(specs.pack(CALLS[name])), strict=True))
    return {
        key: value for key, value in values.items() if value not in (0, specs.NONE) and key != "wanted"
    } | ({key: 0 for key in ("fd", "path", "data", "address", "fds") if values[key] == 0})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openat", {"args": 4, "path": 1, "returns_fd": 1}),
        ("read", {"args": 3, "fd": 0, "data": 1, "data_kind": 1}),
        ("writev", {"args": 3, "fd": 0, "data": 1, "data_kind": 2}),
        ("connect", {"args": 3, "fd": 0, "address": 1}),
        ("accept4", {"args": 4, "address": 1, "address_out": 1, "returns_fd": 1}),
        ("recvfrom", {"args": 6, "fd": 0, "data": 1, "data_kind": 1, "address": 4, "address_out": 1}),
        ("sendmsg", {"args": 3, "fd": 0, "data": 1, "data_kind": 3}),
        ("sendmmsg", {"args": 4, "fd": 0, "data": 1, "data_kind": 4}),
        ("renameat2", {"args": 5, "path": 1, "path2": 3}),
        ("close", {"args": 1, "fd": 0, "fd_at_entry": 1, "manages": 1}),
        ("exit_group", {"args": 1, "no_return": 1}),
        ("clone", {"args": 5, "child_returns": 1}),
        ("pipe2", {"args": 2, "fds": 0}),
        ("socketpair", {"args": 4, "fds": 3}),
        ("getpid", {}),
    ],
)
def test_pack(name, expected):
    assert fields(name) == expected


def test_select_takes_names_groups_and_words():
    assert specs.select("none") == frozenset()
    assert specs.select("openat, close") == {CALLS["openat"].number, CALLS["close"].number}
    assert specs.select("all") == set(load.syscalls())
    assert CALLS["connect"].number in specs.select("network")
    assert CALLS["connect"].number in specs.select("default")
    assert CALLS["futex"].number not in specs.select("default")


def test_a_typing_error_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean openat"):
        specs.select("opnat")
