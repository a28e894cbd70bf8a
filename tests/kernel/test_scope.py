"""A recording of some: what they do is in it, exactly; of another user's process not a word is."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import polars as pl
import pytest
from inside import CGROUPS, PYTHON, cgroup, running
from recording import STRATOKIT, recording
from workloads import echo, nginx, web
from workloads.common import find_program

import stratokit as sk

pytestmark = pytest.mark.kernel

FILES, MESSAGES = 7, 5
# On each line of its input: opens files, talks over TCP, and starts a program.
CHOSEN = f"""
import os, socket, subprocess, sys
port, folder = int(sys.argv[1]), sys.argv[2]
for line in sys.stdin:
    for i in range({FILES}):
        os.close(os.open(f"{{folder}}/chosen-{{i}}", os.O_CREAT | os.O_RDWR))
    with socket.create_connection(("127.0.0.1", port)) as talk:
        for i in range({MESSAGES}):
            talk.send(b"chosen-words")
            talk.recv(100)
    child = subprocess.Popen(["/bin/echo", "chosen-child"], stdout=subprocess.DEVNULL)
    child.wait()
    print(child.pid, flush=True)
"""
# Another user's process, which does the same all the time.
STRANGER = """
import os, socket, subprocess, sys, time
there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
there.bind(("127.0.0.1", 0))
listener = socket.create_server(("127.0.0.1", 0))
print(flush=True)
while True:
    os.close(os.open("/tmp/stranger-file", os.O_CREAT | os.O_RDWR))
    there.sendto(b"stranger-datagram", there.getsockname())
    there.recv(100)
    with socket.create_connection(listener.getsockname()) as one, listener.accept()[0] as other:
        one.send(b"stranger-stream")
        other.recv(100)
    subprocess.run(["/bin/true", "stranger-argument"])
    time.sleep(0.05)
"""


@contextlib.contextmanager
def stranger():
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with running(*user, PYTHON, "-c", STRANGER, "stranger-words") as process:
        process.stdout.readline()
        yield process


def do(process) -> int:
    """Let the chosen program do its work; returns the pid of the program that it started."""
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def words_in(made, kept_spool: Path) -> bytes:
    """All that a reader could find: the spool and its conversions as they are, every cell of the capture."""
    cells = pl.read_parquet(made.path)
    texts = [
        cells[n].cast(pl.String).drop_nulls().unique() for n, t in cells.schema.items() if t == pl.String
    ]
    data = [cells[n].drop_nulls() for n, t in cells.schema.items() if t == pl.Binary]
    exports = [made.path.with_suffix(suffix) for suffix in (".pcapng", ".pcap", ".scap")]
    for path in exports:
        sk.open(made.path).export(path)
    return b"\0".join(
        [path.read_bytes() for path in (kept_spool, made.path, *exports)]
        + [text.encode() for column in texts for text in column]
        + [value for column in data for value in column]
    )


@contextlib.contextmanager
def scoped(tmp_path, *options):
    """Record beside a stranger of whom nothing may be found afterwards."""
    with stranger() as other:
        with recording(tmp_path / "a.parquet", *options) as made:
            time.sleep(0.2)
            yield made
            os.link(made.spool, tmp_path / "kept.spool")
        found = words_in(made, tmp_path / "kept.spool")
        assert b"stranger" not in found
        pids = pl.read_parquet(made.path)["pid"].drop_nulls()
        assert other.pid not in set(pids)


def check(made, process, server, child, folder, times=1):
    """The rows of the chosen program are those of what it did, and there are no others."""
    calls = made.rows("syscall")
    opened = calls.filter(pl.col("path").str.starts_with(f"{folder}/chosen-"), syscall="openat")
    assert opened.height == FILES * times
    packets = made.rows("packet").filter(pl.col("ip_proto") == 6)
    assert packets.height > 0
    # Its own end of the connection alone, from the first SYN on.
    out = packets.filter(direction="out")
    assert set(out["dst_port"]) == {server.port}
    assert set(packets.filter(direction="in")["src_port"]) == {server.port}
    assert out.filter(pl.col("tcp_flags") & 18 == 2).height == times
    assert out["payload_len"].sum() == len("chosen-words") * MESSAGES * times
    assert set(packets["pid"]) == {process.pid}
    sockets = made.rows("socket").filter(pl.col("event") == "state")
    assert set(sockets["dst_port"]) == {server.port}
    assert sockets["new_state"].to_list().count("ESTABLISHED") == times
    executed = made.rows("process").filter(event="exec")
    assert executed.filter(pid=child).select("cmdline").rows() == [("/bin/echo chosen-child",)]
    assert set(made.rows("process")["pid"]) == set(calls["pid"]) | {process.pid}
    assert not made.losses().get("scope_full")


@pytest.fixture
def folder():
    """Where any user may make files."""
    with tempfile.TemporaryDirectory(prefix="stratokit-scope-", dir="/tmp") as place:
        Path(place).chmod(0o777)
        yield place


def test_a_process_and_its_children(tmp_path, folder):
    with echo.echo_server() as server, running(PYTHON, "-c", CHOSEN, str(server.port), folder) as process:
        with scoped(tmp_path, "--pid", str(process.pid)) as made:
            child = do(process)
        check(made, process, server, child, folder)


def test_processes_by_name_older_and_newer(tmp_path, folder):
    (tmp_path / "chosen").symlink_to(PYTHON)
    argv = (str(tmp_path / "chosen"), "-c", CHOSEN)
    with (
        echo.echo_server() as server,
        running(*argv, str(server.port), folder) as older,
        scoped(tmp_path, "--comm", "chosen") as made,
        running(*argv, str(server.port), folder) as newer,
    ):
        do(older)
        do(newer)
    calls = made.rows("syscall").filter(pl.col("path").str.starts_with(f"{folder}/chosen-"), syscall="openat")
    assert dict(calls["pid"].value_counts().iter_rows()) == {older.pid: FILES, newer.pid: FILES}
    out = made.rows("packet").filter(pl.col("tcp_flags") & 18 == 2, direction="out")
    assert sorted(out["pid"]) == sorted([older.pid, newer.pid])
    # The name is that of the program: what it starts is another one.
    assert made.rows("process").filter(event="exec")["pid"].to_list() == [newer.pid]


def test_processes_of_a_user(tmp_path, folder):
    user = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    with echo.echo_server() as server:
        argv = (*user, PYTHON, "-c", CHOSEN, str(server.port), folder)
        with scoped(tmp_path, "--uid", "65533") as made, running(*argv) as process:
            child = do(process)
        check(made, process, server, child, folder)
    assert set(made.rows("process")["uid"]) == {65533}


def test_a_command_and_its_children(tmp_path, folder):
    with echo.echo_server() as server, stranger() as other:
        path = tmp_path / "a.parquet"
        inner = f"[{PYTHON!r}, '-c', {CHOSEN!r}, *sys.argv[1:]]"
        script = f"import subprocess, sys; subprocess.run({inner}, input=b'x')"
        argv = [*STRATOKIT, "record", "-o", path, "--", PYTHON, "-c", script, str(server.port), folder]
        said = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=True)
    rows = pl.read_parquet(path)
    opened = rows.filter(pl.col("path").str.starts_with(f"{folder}/chosen-"), syscall="openat")
    assert opened.height == FILES
    assert rows.filter(pl.col("event") == "exec")["pid"].n_unique() == 3, said.stderr
    assert other.pid not in rows["pid"]
    assert rows.filter(kind="packet", direction="in")["src_port"].unique().to_list() == [server.port]


def test_a_cgroup_and_what_is_below(tmp_path, folder):
    with cgroup(f"stratokit-{uuid.uuid4()}") as group, echo.echo_server() as server:
        inner = group / "inner"
        inner.mkdir()
        with running(PYTHON, "-c", CHOSEN, str(server.port), folder, group=inner) as process:
            with scoped(tmp_path, "--cgroup", str(group)) as made:
                child = do(process)
            check(made, process, server, child, folder)
    assert set(made.rows("process")["cgroup"]) == {f"/{group.name}/inner"}


def test_a_process_and_a_cgroup(tmp_path, folder):
    with cgroup(f"stratokit-{uuid.uuid4()}") as group, echo.echo_server() as server:
        argv = (PYTHON, "-c", CHOSEN, str(server.port), folder)
        with contextlib.ExitStack() as stack:
            inside, outside, neither = (
                stack.enter_context(running(*argv, group=where)) for where in (group, None, None)
            )
            scope = ("--cgroup", f"/{group.name}", "--pid", str(outside.pid))
            made = stack.enter_context(scoped(tmp_path, *scope))
            for process in (inside, outside, neither):
                do(process)
    calls = made.rows("syscall").filter(pl.col("path").str.starts_with(f"{folder}/chosen-"), syscall="openat")
    assert dict(calls["pid"].value_counts().iter_rows()) == {inside.pid: FILES, outside.pid: FILES}
    first = made.rows("packet").filter(pl.col("tcp_flags") & 18 == 2, direction="out")
    assert sorted(first["pid"]) == sorted([inside.pid, outside.pid])


def test_a_server_older_than_the_recording(tmp_path):
    """Connections that a chosen listener accepts are chosen from their first packet on; clients are not."""
    with nginx.nginx() as site, scoped(tmp_path, "--pid", str(site.master_pid)) as made:
        sent = web.browse(site)
    rows = sk.open(made.path).table("http").collect().sort("ts_request")
    assert rows.select("method", "path", "status").rows() == [(r.method, r.path, r.status) for r in sent]
    assert set(rows["server_pid"]) <= set(site.worker_pids)
    assert rows["pid"].null_count() == rows.height
    packets = made.rows("packet")
    assert set(packets.filter(direction="in")["dst_port"]) == {site.port}
    assert packets.filter(pl.col("tcp_flags") & 18 == 2, direction="in").height == len(sent)


def test_a_container_without_a_cgroup_of_version_2(tmp_path, folder):
    """Hybrid hosts: the container has cgroups of version 1 alone, and in version 2 is where everybody is."""
    top = Path("/sys/fs/cgroup/memory")
    if not (top / "cgroup.procs").exists():
        pytest.skip("this machine has no cgroups of version 1")
    group = top / f"stratokit-{uuid.uuid4()}" / "docker" / ("5" * 64)
    group.mkdir(parents=True)
    try:
        with echo.echo_server() as server:
            argv = (PYTHON, "-c", CHOSEN, str(server.port), folder)
            with running(*argv, group=group) as process, scoped(tmp_path, "--container", "5" * 12) as made:
                child = do(process)
            check(made, process, server, child, folder)
    finally:
        for path in (group, group.parent, group.parent.parent):
            path.rmdir()
    assert set(made.rows("packet")["container_id"]) == {"5" * 64}


POD_UID = "0a1b2c3d-1111-4222-8333-0123456789ab"


@pytest.fixture
def pod_logs():
    """What kubelet leaves of a pod; made on this machine, which has no kubelet, for the time of a test."""
    root = Path("/var/log/pods")
    if root.exists():
        pytest.skip("this machine has pods of its own")
    folder = root / f"shop_my-app-7d9f8b6c5d-x2x4z_{POD_UID}"
    (folder / "app").mkdir(parents=True)
    yield folder
    shutil.rmtree(root)


@pytest.mark.usefixtures("pod_logs")
def test_containers_of_a_pod_that_come_while_recording(tmp_path, folder):
    one, two = "1" * 64, "2" * 64
    with cgroup("kubepods", "burstable", f"pod{POD_UID}", one) as group, echo.echo_server() as server:
        argv = (PYTHON, "-c", CHOSEN, str(server.port), folder)
        with running(*argv, group=group) as first, scoped(tmp_path, "--pod", "my-app") as made:
            do(first)
            group.with_name(two).mkdir()
            with running(*argv, group=group.with_name(two)) as second:
                do(second)
    calls = made.rows("syscall").filter(pl.col("path").str.starts_with(f"{folder}/chosen-"), syscall="openat")
    pod = ("my-app-7d9f8b6c5d-x2x4z", "shop")
    names = {(*pod, first.pid, one), (*pod, second.pid, two)}
    assert set(calls.select("pod", "namespace", "pid", "container_id").rows()) == names
    packets = made.rows("packet").filter(direction="out")
    assert set(packets.select("pod", "namespace", "pid", "container_id").rows()) == names
    boxes = sk.open(made.path).table("containers").collect()
    assert set(boxes.select("container_id", "pod", "namespace", "pod_uid", "name_source").rows()) == {
        (box, *pod, POD_UID, "pod logs") for box in (one, two)
    }


def test_a_pod_that_comes_while_recording_its_namespace(tmp_path, folder, pod_logs):
    later = POD_UID.replace("0a1b", "9f9f")
    with cgroup("kubepods", f"pod{POD_UID}", "1" * 64), echo.echo_server() as server:
        with scoped(tmp_path, "--namespace", "shop") as made:
            (pod_logs.parent / f"shop_other_{later}").mkdir()
            argv = (PYTHON, "-c", CHOSEN, str(server.port), folder)
            group = CGROUPS / "kubepods" / f"pod{later}" / ("3" * 64)
            group.mkdir(parents=True)
            time.sleep(1.2)  # it is looked for every half second
            with running(*argv, group=group) as process:
                child = do(process)
        check(made, process, server, child, folder)
    # Until it has executed a program nothing tells the cgroup of the shell that entered it.
    assert set(made.rows("syscall").filter(pl.col("syscall") == "openat", comm="python3")["pod"]) == {"other"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--pid", "4194300"), "there is no process 4194300"),
        (("--cgroup", "/no/such"), "there is no cgroup /no/such"),
        (("--container", "web"), "no container of this host has the id or name web"),
        (("--pod", "my-app"), "this host runs no Kubernetes pods"),
        (("--namespace", "shop"), "--namespace shop means nothing here; choose with --container"),
    ],
)
def test_what_is_not_there_is_one_sentence(tmp_path, options, sentence):
    argv = [*STRATOKIT, "record", "-o", tmp_path / "a.parquet", *options]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# What the container runs: it says that it is there, waits for a line, opens files, and says so.
INSIDE = f"""
import os, sys
print("ready", flush=True)
sys.stdin.readline()
for i in range({FILES}):
    os.close(os.open(f"/tmp/chosen-{{i}}", os.O_CREAT | os.O_RDWR))
print("done", flush=True)
"""


def oci_config(name):
    """A container of the host's own programs, read-only, without networks or devices of its own."""
    binds = [place for place in ("/usr", "/bin", "/lib", "/lib64", "/etc") if Path(place).exists()]
    mounts = [{"destination": p, "type": "bind", "source": p, "options": ["rbind", "ro"]} for p in binds]
    mounts += [{"destination": "/proc", "type": "proc", "source": "proc"}]
    mounts += [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [PYTHON, "-c", INSIDE],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {"cgroupsPath": f"/{name}", "namespaces": [{"type": "pid"}, {"type": "mount"}]},
    }


# crun makes no cgroups where version 1 and 2 are mounted side by side, and is no requirement of the tests.
RUNTIMES = ["runc", *(["crun"] if CGROUPS.name != "unified" and find_program("crun") else [])]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_real_container(tmp_path, runtime):
    """Started by a runtime on a root file system of our own: named, recorded alone."""
    if (program := find_program(runtime)) is None:
        pytest.skip(f"this machine has no {runtime}")
    name = f"stratokit-{uuid.uuid4()}"
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps(oci_config(name)))
    with running(program, "run", "--bundle", str(bundle), name) as process:
        assert process.stdout.readline() == "ready\n"
        with scoped(tmp_path, "--container", name) as made:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
    calls = made.rows("syscall").filter(pl.col("path").str.starts_with("/tmp/chosen-"), syscall="openat")
    assert calls.height == FILES
    assert set(calls["container_id"]) == {name}
    boxes = sk.open(made.path).table("containers").collect()
    assert boxes.select("container_name", "runtime", "name_source").rows() == [(name, runtime, runtime)]
