"""The `args` column: names from calls.toml, values as strace shows them."""

from __future__ import annotations

import polars as pl
import pytest

from stratokit.engine.syscall_text import arguments

SCHEMA = {
    "syscall": pl.String,
    **{f"arg{i}": pl.UInt64 for i in range(6)},
    "path": pl.String,
    "path2": pl.String,
    "dst_ip": pl.String,
    "dst_port": pl.UInt16,
    "data": pl.Binary,
    "ret": pl.Int64,
    "fd": pl.Int32,
    "fd2": pl.Int32,
}
AT_FDCWD = 0xFFFFFF9C


def texts(*calls: dict[str, object]) -> list[str]:
    frame = pl.DataFrame([dict.fromkeys(SCHEMA) | call for call in calls], schema=SCHEMA)
    return frame.lazy().select(arguments().alias("args")).collect()["args"].to_list()


def call(name: str, *numbers: int, **more: object) -> dict[str, object]:
    return {"syscall": name, "ret": 0} | {f"arg{i}": n for i, n in enumerate(numbers)} | more


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            call("openat", AT_FDCWD, 1, 0o2000000, path="/etc/hosts"),
            'dirfd=AT_FDCWD, path="/etc/hosts", flags=O_RDONLY|O_CLOEXEC',
        ),
        (
            call("openat", 2**64 - 100, 1, 0o2000101, 0o644, path='/a"b'),
            'dirfd=AT_FDCWD, path="/a\\"b", flags=O_WRONLY|O_CREAT|O_CLOEXEC, mode=0644',
        ),
        (call("open", 1, 0o20200002, 0o600, path="/tmp"), 'path="/tmp", flags=O_RDWR|O_TMPFILE, mode=0600'),
        (call("rename", 1, 2, path="/a", path2="/b"), 'oldpath="/a", newpath="/b"'),
        (call("unlinkat", 5, 1, 0x200, path="x"), 'dirfd=5, path="x", flags=AT_REMOVEDIR'),
        (call("connect", 4, 9, 16, dst_ip="10.0.0.1", dst_port=80), "fd=4, addr=10.0.0.1:80, addrlen=16"),
        (call("connect", 4, 9, 28, dst_ip="::1", dst_port=80), "fd=4, addr=[::1]:80, addrlen=28"),
        (call("connect", 4, 0x1000, 28), "fd=4, addr=0x1000, addrlen=28"),
        (call("accept", 4, 0, 0), "listen_fd=4, addr=NULL, addrlen=NULL"),
        (call("write", 1, 9, 4, data=b'a"b\n', ret=4), 'fd=1, buf="a\\"b\\n", count=4'),
        (call("read", 3, 9, 80, data=b"G\x00\xff\\", ret=80), 'fd=3, buf="G\\x00\\xff\\\\"..., count=80'),
        (call("read", 3, 0x7F00, 80, ret=-11), "fd=3, buf=0x7f00, count=80"),
        (call("socket", 2, 1 | 0o4000, 6), "domain=AF_INET, type=SOCK_STREAM|SOCK_NONBLOCK, protocol=6"),
        (
            call("sendto", 3, 9, 2, 0x4000, 0, 0, data=b"hi", ret=2),
            'fd=3, buf="hi", len=2, flags=MSG_NOSIGNAL, addr=NULL, addrlen=0',
        ),
        (call("pipe2", 0x7FF0, 0o2000000, fd=3, fd2=4), "fds=[3, 4], flags=O_RDONLY|O_CLOEXEC"),
        (call("pipe", 0x7FF0, ret=-24), "fds=0x7ff0"),
        (call("lseek", 3, 2**64 - 5, 1), "fd=3, offset=-5, whence=1"),
        (call("lseek", 3, 3 << 30, 0), "fd=3, offset=3221225472, whence=0"),
        (call("kill", 2**32 - 1, 15), "pid=-1, sig=SIGTERM"),
        (call("fcntl", 3, 4, 0x800), "fd=3, cmd=F_SETFL, arg=0x800"),
        (call("sync"), ""),
        (call("made_up", 1, 2**64 - 1), "arg0=0x1, arg1=0xffffffffffffffff, arg2=?, arg3=?, arg4=?, arg5=?"),
    ],
)
def test_arguments_read_as_in_strace(row, expected):
    assert texts(row) == [expected]


def test_rows_keep_their_order_when_calls_are_mixed():
    rows = [call(name, 1, 9, 2, data=b"x", ret=1) for name in ("read", "write", "read", "close", "write")]
    expected = [texts(row)[0] for row in rows]
    assert texts(*rows) == expected


def test_no_rows_give_no_texts():
    assert texts() == []


def test_text_is_composed_only_when_it_is_looked_at():
    frame = pl.LazyFrame(schema=SCHEMA).with_columns(arguments().alias("args")).select("ret")
    assert "python_udf" not in frame.explain()
