from stratokit.record import held


def make(proc, pid, comm, links):
    folder = proc / str(pid) / "fd"
    folder.mkdir(parents=True)
    (proc / str(pid) / "comm").write_text(f"{comm}\n")
    for fd, target in links.items():
        (folder / str(fd)).symlink_to(target)


def test_a_shared_socket_is_of_the_process_that_got_it_last(tmp_path):
    make(tmp_path, 7, "parent", {3: "socket:[11]", 4: "socket:[12]", 5: "/dev/null"})
    make(tmp_path, 9, "child", {3: "socket:[11]"})
    make(tmp_path, 13, "recorder", {3: "socket:[12]"})
    (tmp_path / "7" / "fd" / "6").write_text("no link")
    (tmp_path / "self").mkdir()
    (tmp_path / "20").mkdir()  # it ended
    sockets = [
        {"inode": 11, "socket_cookie": 101},
        {"inode": 12, "socket_cookie": 102},
        {"inode": 14, "socket_cookie": 104},
        {"inode": 0, "socket_cookie": 105},  # waits to be accepted
    ]
    assert held.rows(sockets, own=13, proc=tmp_path) == [
        {"socket_cookie": 101, "pid": 9, "comm": "child"},
        {"socket_cookie": 102, "pid": 7, "comm": "parent"},
    ]
    assert held.rows(sockets, own=13, only={7}, proc=tmp_path)[0]["pid"] == 7
    assert held.rows([], own=13, proc=tmp_path) == []
