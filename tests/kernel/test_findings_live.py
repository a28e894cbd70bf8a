"""Findings on what really happened: each trouble is made, beside one that is nearly it, and recorded."""

import json
import shutil
import subprocess
import sys

import pytest
from recording import recording
from workloads import openssl
from workloads.lossy import ADDRESSES, inside, lossy_link
from workloads.slow_disk import slow_disk

import stratokit as sk

pytestmark = pytest.mark.kernel

# One process keeps 80 descriptors; the other opens as many, one at a time.
LEAKS = """
kept = [open("/etc/passwd") for _ in range(80)]
"""
CLOSES = """
for _ in range(80):
    open("/etc/passwd").close()
"""
# A server that reads late: of 8 MB at once, and of a few bytes.
LATE = """
import socket, threading, time
for size in (8_000_000, 100):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def send():
            with socket.create_connection(listener.getsockname()) as peer:
                peer.sendall(bytes(size))
        sender = threading.Thread(target=send)
        sender.start()
        peer, _ = listener.accept()
        with peer:
            time.sleep(0.7)
            while peer.recv(1 << 20):
                pass
        sender.join()
"""
# Three requests at once on one connection, answered in order; then one after the other.
IN_ORDER = """
import socket, threading, time
REQUEST = b"GET /a HTTP/1.1\\r\\nHost: order.test\\r\\n\\r\\n"
RESPONSE = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"
for at_once in (True, False):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            peer, _ = listener.accept()
            with peer:
                got, done = b"", 0
                while done < 4:
                    got += peer.recv(4096)
                    while got.count(REQUEST) > done:
                        time.sleep(0.05)
                        peer.sendall(RESPONSE)
                        done += 1
                peer.recv(1)
        server = threading.Thread(target=serve)
        server.start()
        with socket.create_connection(listener.getsockname()) as peer:
            for number in range(4):
                peer.sendall(REQUEST)
                if at_once:
                    time.sleep(0.001)  # a packet each
                else:
                    peer.recv(100)
            left = 4 * len(RESPONSE) if at_once else 0
            while left:
                left -= len(peer.recv(left))
        server.join()
"""
# The server sends one large answer over the link, or a small one.
SERVE = f"""
import socket
with socket.create_server(("{ADDRESSES[1]}", 4434)) as listener:
    print("ready", flush=True)
    for size in (100, 5000):
        peer, _ = listener.accept()
        with peer:
            peer.recv(10)
            peer.sendall(bytes(size))
            peer.recv(10)
"""
ASK = f"""
import socket
for size in (100, 5000):
    with socket.create_connection(("{ADDRESSES[1]}", 4434)) as peer:
        peer.sendall(b"?")
        peer.settimeout(3)
        try:
            while size:
                size -= len(peer.recv(size))
        except TimeoutError:
            pass
"""
# Nobody has these addresses: two SYNs to the one, one to the other.
NOBODY = """
import socket
for address in ("10.213.0.9", "10.213.0.9", "10.213.0.8"):
    try:
        socket.create_connection((address, 80), 0.2)
    except TimeoutError:
        pass
"""
# Resolvers, a server of HTTP and closed ports; what is asked of each is one more than what is nearly trouble.
# Prints the port of each.
REQUESTS = r"""
import json, socket, threading, time

def resolver(delay_s, rcode):
    asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asked.bind(("127.0.0.1", 0))
    def serve():
        while True:
            question, who = asked.recvfrom(512)
            time.sleep(delay_s)
            asked.sendto(question[:2] + bytes([0x81, 0x80 | rcode]) + question[4:], who)
    threading.Thread(target=serve, daemon=True).start()
    return asked.getsockname()[1]

def look_up(client, port, times):
    for k in range(times):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.bind((client, 0))
            asking.sendto(b"\x12" + bytes([k]) + b"\1\0\0\1" + bytes(6) + b"\4shop\1" + bytes([97 + k])
                          + b"\4test\0\0\1\0\1", ("127.0.0.1", port))
            asking.recv(512)

web = socket.create_server(("127.0.0.1", 0))

def serve(peer):
    with peer:
        while request := peer.recv(4096):
            path = request.split()[1]
            time.sleep(0.06 if b"late" in path else 0)
            status = b"503 No" if b"fail" in path else b"200 OK"
            peer.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")

def accept():
    while True:
        threading.Thread(target=serve, args=(web.accept()[0],), daemon=True).start()

threading.Thread(target=accept, daemon=True).start()

def ask(client, *targets):
    with socket.create_connection(web.getsockname(), source_address=(client, 0)) as peer:
        for host, path in targets:
            peer.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            peer.recv(4096)

def refused(times):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        for _ in range(times):
            try:
                socket.create_connection(("127.0.0.1", port))
            except ConnectionRefusedError:
                pass
    return port

slow, nearly_slow, bad, nearly_bad, nothing = (
    resolver(*how) for how in ((0.11, 0), (0.11, 0), (0, 2), (0, 2), (0, 3)))
look_up("127.0.0.4", slow, 3)
look_up("127.0.0.4", nearly_slow, 2)
look_up("127.0.0.4", bad, 3)
look_up("127.0.0.4", nearly_bad, 2)
look_up("127.0.0.5", nothing, 5)
look_up("127.0.0.6", nothing, 4)
fail = [("bad.test", "/fail")] * 3 + [("fair.test", "/fail")] * 2
late = [("shop.test", "/late?n=1")] * 3 + [("shop.test", "/later")] * 2
ask("127.0.0.4", *fail, *late, *[("shop.test", "/")] * 20)
for _ in range(20):
    ask("127.0.0.5", ("shop.test", "/"))
for _ in range(19):
    ask("127.0.0.6", ("shop.test", "/"))
print(json.dumps([slow, bad, refused(2), refused(1), web.getsockname()[1]]))
"""


def findings(path):
    found = sk.open(path).report(["findings"])["findings"]
    return {row["rule"]: row for row in found.to_dicts()}


def python(program):
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_troubles_of_processes_and_sockets(tmp_path):
    with recording(tmp_path / "trouble.parquet") as made:
        for program in (CLOSES, LEAKS, LATE, IN_ORDER):
            python(program)
    found = findings(made.path)
    assert set(found) - {"slow-disk"} == {"fd-leak", "zero-window", "head-of-line"}, found
    assert "of 2 connections" not in found["zero-window"]["finding"]  # each has a port of its own
    assert 400 < int(found["zero-window"]["finding"].split(" ms ")[0].rpartition(" ")[2]) < 1500
    assert (found["head-of-line"]["count"], found["head-of-line"]["of"]) == (3, 4)
    capture = sk.open(made.path)
    leak = found["fd-leak"]
    assert capture.table("syscalls", where=leak["filter"]).collect().height == leak["count"] >= 80


def test_an_mtu_that_nobody_tells_of(tmp_path):
    with lossy_link(0, 0.005, largest=1000) as link, recording(tmp_path / "mtu.parquet") as made:
        command = inside(link.namespaces[1], sys.executable, "-c", SERVE)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout.readline() == "ready\n"
            for program in (ASK, NOBODY):
                command = inside(link.namespaces[0], sys.executable, "-c", program)
                subprocess.run(command, check=True, timeout=60)
            assert server.wait(60) == 0
    found = findings(made.path)
    assert set(found) - {"slow-disk", "retransmissions"} == {"small-mtu", "connect-failing"}
    assert found["connect-failing"]["finding"] == "2 of 2 connections to 10.213.0.9:80 were never answered."
    assert "in 1 connection with 10.213.0.2:4434" in found["small-mtu"]["finding"]


def test_a_slow_disk_and_certificates(tmp_path):
    """Writes of 60 ms and of 20 ms; certificates that end in 5 days and in 30, refused twice and once."""
    nearly = shutil.copy(shutil.which("dd"), tmp_path / "nearly")  # a program of another name
    with (
        slow_disk(tmp_path / "slow", 0.06) as slow,
        slow_disk(tmp_path / "quick", 0.02) as quick,
        openssl.s_server(days=5) as ending,
        openssl.s_server() as lasting,
        recording(tmp_path / "made.parquet") as made,
    ):
        for program, file in (("dd", slow), (nearly, quick)):
            options = ("if=/dev/zero", f"of={file}", "bs=4096", "count=5", "conv=notrunc,fsync")
            subprocess.run([program, *options], check=True, capture_output=True, timeout=60)
        for site in (ending, lasting):
            openssl.s_client(site, "-tls1_2")
        for site in (ending, ending, lasting):
            openssl.s_client(site, "-tls1_2", "-verify_return_error")
    capture = sk.open(made.path)
    rows = capture.report(["findings"])["findings"].to_dicts()
    rules = ("slow-disk", "certificate", "tls-failing")
    found = {(row["rule"], row["whom"]): row for row in rows if row["rule"] in rules}
    assert {(rule, whom) for rule, whom in found if whom != "openssl"} == {
        ("slow-disk", "dd"),
        ("certificate", f"127.0.0.1:{ending.port}"),
        ("tls-failing", f"127.0.0.1:{ending.port}"),
    }
    refused = found["tls-failing", f"127.0.0.1:{ending.port}"]
    assert refused["finding"].startswith("2 of 3 TLS handshakes")
    assert "the client said " in refused["finding"]
    assert capture.table("tls", where=refused["filter"]).collect().height == 2
    disk = found["slow-disk", "dd"]
    assert disk["count"] == 6  # five writes and the fsync
    assert f"most often in write on {slow}." in disk["finding"]
    assert capture.table("syscalls", where=disk["filter"]).collect().height == 6
    ends = found["certificate", f"127.0.0.1:{ending.port}"]
    assert "CN=kiosk.test" in ends["finding"]
    assert ends["finding"].endswith("in 4 days.")
    files = {(row["comm"], row["file"]): row for row in capture.report(["files"])["files"].to_dicts()}
    written = files["dd", str(slow)]
    assert (written["written_bytes"], written["errors"]) == (5 * 4096, 0)
    assert written["slowest"] in ("write", "fsync")
    assert 360_000_000 <= written["total_ns"] < 2 * files["nearly", str(quick)]["total_ns"] * 3


def test_troubles_of_names_and_requests(tmp_path):
    with recording(tmp_path / "requests.parquet") as made:
        said = subprocess.run(
            [sys.executable, "-c", REQUESTS], check=True, capture_output=True, text=True, timeout=60
        )
    slow, bad, closed, once_closed, web = json.loads(said.stdout)
    capture = sk.open(made.path)
    rows = capture.report(["findings"])["findings"].to_dicts()
    found = {(row["rule"], row["whom"]): row for row in rows if row["rule"] != "slow-disk"}
    assert {key: row["count"] for key, row in found.items()} == {
        ("resolver-slow", f"127.0.0.1:{slow}"): 3,
        ("resolver-failing", f"127.0.0.1:{bad}"): 3,
        ("names-denied", "127.0.0.5"): 5,
        ("connect-failing", f"127.0.0.1:{closed}"): 2,
        ("server-errors", "bad.test"): 3,
        ("slow-endpoint", "shop.test/late"): 3,
        ("churn", "127.0.0.5"): 20,
    }
    for (rule, whom), row in found.items():
        selected = capture.table(row["table"], where=row["filter"]).collect()
        number = selected["flow_id"].n_unique() if rule == "churn" else selected.height
        assert number == row["count"], (rule, whom)
    assert capture.table("flows", where=f"tcp.port == {once_closed}").collect().height == 1
    assert f"127.0.0.1:{web}" in found["churn", "127.0.0.5"]["finding"]
