"""Relative names get the directory that they were meant from, or stay."""

from stat import S_IFDIR

import polars as pl
import pytest
from helpers.survey import survey

from stratokit.engine.ingest.call_records import AT_FDCWD, NO_FOLDER
from stratokit.engine.ingest.folders import Folders

FORK = {"ts": pl.Int64, "event": pl.String, "pid": pl.UInt32, "parent_pid": pl.UInt32}
WANTED = {"pid": pl.UInt32, "ts": pl.Int64, "dirfd": pl.Int32, "name": pl.String}
SHELL = {"processes": [{"pid": 1, "cwd": "/home"}, {"pid": 2, "cwd": None}]}


def completed(found, *wanted, forks=()):
    folders = Folders(found, pl.DataFrame([(ts, "fork", *rest) for ts, *rest in forks], FORK, orient="row"))
    return folders.complete(pl.DataFrame(wanted, WANTED, orient="row")).to_list()


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("a", "/home/a"),
        ("./a", "/home/a"),
        ("././a/./b", "/home/a/./b"),
        (".", "/home"),
        ("..", "/home/.."),
        ("../b", "/home/../b"),
        ("/a", "/a"),
        ("", ""),
        (None, None),
        (".hidden", "/home/.hidden"),
    ],
)
def test_a_name_in_the_directory_of_the_snapshot(name, full):
    assert completed(survey(SHELL), (1, 5, AT_FDCWD, name)) == [full]


def test_a_name_without_known_directory_stays():
    found = survey(SHELL)
    assert completed(found, (2, 5, AT_FDCWD, "a"), (3, 5, AT_FDCWD, "a"), (1, 5, 7, "a")) == ["a"] * 3
    assert completed(found, (1, 5, NO_FOLDER, "a")) == ["a"]


def test_a_directory_counts_from_its_change_on_and_goes_to_children():
    found = survey(SHELL, folders=[(1, 10, "work", 0), (9, 30, "/tmp", 0), (1, 40, "..", 0)])
    wanted = [(pid, ts, AT_FDCWD, "a") for pid, ts in ((1, 9), (1, 11), (9, 21), (9, 31), (1, 31), (1, 41))]
    assert completed(found, *wanted, forks=[(20, 9, 1)]) == [
        "/home/a",
        "/home/work/a",
        "/home/work/a",
        "/tmp/a",
        "/home/work/a",
        "/home/work/../a",
    ]


def test_directories_opened_one_from_another():
    opened = [
        (100, 10, 1, AT_FDCWD, "top", 5, S_IFDIR),
        (101, 11, 1, 3, "middle", 6, S_IFDIR),
        (102, 12, 1, 4, "inner", 7, S_IFDIR),
    ]
    users = [(1, fd, ts, identity, inode) for fd, (identity, ts, *_, inode, _) in enumerate(opened, 3)]
    found = survey(SHELL, files=opened, users=users)
    assert completed(found, (1, 20, 5, "file")) == ["/home/top/middle/inner/file"]
    assert completed(found, (1, 20, 5, ""), (1, 20, 5, ".")) == ["/home/top/middle/inner"] * 2
    # Another file at the same place in memory has another inode.
    other = survey(SHELL, files=opened, users=[*users[:2], (1, 5, 12, 102, 8)])
    assert completed(other, (1, 20, 5, "file")) == ["file"]


def test_the_current_directory_by_descriptor():
    opened = [(100, 10, 1, AT_FDCWD, "work", 5, S_IFDIR)]
    found = survey(SHELL, files=opened, users=[(1, 3, 10, 100, 5)], folders=[(1, 15, "", 100)])
    assert completed(found, (1, 12, AT_FDCWD, "a"), (1, 16, AT_FDCWD, "a")) == ["/home/a", "/home/work/a"]
    unknown = survey(SHELL, folders=[(1, 15, "", 200)])
    assert completed(unknown, (1, 16, AT_FDCWD, "a")) == ["a"]
