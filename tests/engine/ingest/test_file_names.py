"""fd_name: which open file a call worked on, when its structure in the kernel is used again and again."""

from stat import S_IFIFO

import pytest
from helpers.spool_bytes import call, syscall_rows

A, B = (0xFFFF0001, 7), (0xFFFF0001, 8)  # two files, one after the other at the same place in memory


def test_an_opening_has_its_own_name_however_the_clocks_drift(tmp_path):
    """Start and duration converted apart came out a nanosecond before the end that the name counts from."""
    opens = [
        call(
            "openat",
            1_000_000 + 20_011 * i,
            10_007,
            2**64 - 100,
            0,
            0,
            0,
            ret=3,
            file=(1, i),
            path=b"/%d" % i,
        )
        for i in range(40)
    ]
    rows = syscall_rows(tmp_path, opens, clock=((0, 0), (2_000_000, 2_000_900)))
    assert rows["fd_name"].to_list() == [f"/{i}" for i in range(40)]


def test_a_file_that_was_closed_keeps_its_name_though_another_took_its_place(tmp_path):
    """The other processor opens a file while the close is not over yet."""
    rows = syscall_rows(
        tmp_path,
        [
            call("openat", 100, 10, 2**64 - 100, 0, 0, 0, ret=3, file=A, path=b"/a"),
            call("openat", 210, 10, 2**64 - 100, 0, 0, 0, ret=3, file=B, path=b"/b", pid=11),
            call("close", 200, 50, 3, file=A),
            call("close", 300, 10, 3, file=B, pid=11),
        ],
    )
    assert rows.select("syscall", "fd_name").rows() == [
        ("openat", "/a"),
        ("close", "/a"),
        ("openat", "/b"),
        ("close", "/b"),
    ]


def test_a_pipe_in_the_place_of_a_file_with_its_inode_number_is_a_pipe(tmp_path):
    rows = syscall_rows(
        tmp_path,
        [
            call("openat", 100, 10, 2**64 - 100, 0, 0, 0, ret=3, file=A, path=b"/a"),
            call("close", 200, 10, 3, file=A),
            call("write", 300, 10, 3, 0, 1, ret=1, file=A, mode=S_IFIFO),
        ],
    )
    assert rows["fd_name"].to_list() == ["/a", "/a", "pipe:[7]"]


@pytest.mark.parametrize(
    ("row", "name"), [((10, 3, "/log", 7), "pipe:[8]"), ((10, 3, "pipe:[8]", 8), "pipe:[8]")]
)
def test_the_snapshot_names_a_descriptor_only_while_it_is_that_file(tmp_path, row, name):
    """exec closes some files, and nobody is told; the next call on that fd is on another file."""
    rows = syscall_rows(
        tmp_path,
        [call("write", 300, 10, 3, 0, 1, ret=1, file=B, mode=S_IFIFO)],
        {"descriptors": [row]},
    )
    assert rows["fd_name"].to_list() == [name]


@pytest.mark.parametrize("row", [(10, 3, "/log", 8), (10, 3, "/log", None), (10, 3, "/log")])
def test_a_file_that_was_open_before_has_the_name_of_the_snapshot(tmp_path, row):
    rows = syscall_rows(tmp_path, [call("write", 300, 10, 3, 0, 1, ret=1, file=B)], {"descriptors": [row]})
    assert rows["fd_name"].to_list() == ["/log"]
