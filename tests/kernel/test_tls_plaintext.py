"""What programs say in TLS, taken from OpenSSL: our rows equal what they did, and what a key log opens."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from recording import STRATOKIT, recording
from workloads import boxed, nginx, tls_bulk, web
from workloads.certificate import certificate
from workloads.common import LOOPBACK

import stratokit as sk

pytestmark = pytest.mark.kernel

TABLES = ("http", "http2", "http_bodies")


def http_rows(capture, port):
    return capture.table("http").filter(pl.col("server_port") == port).collect().sort("ts_request")


def test_nginx_and_curl(tmp_path, monkeypatch):
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    with certificate("kiosk.test") as made_of, nginx.nginx(certificate=made_of, http2=True) as site:
        where = ("--resolve", f"kiosk.test:{site.port}:{LOOPBACK}", "--insecure")
        urls = [site.url(path, "kiosk.test") for path in nginx.SITE]
        with recording(tmp_path / "a.parquet", "--tls") as made:
            sent = web.curl(urls, "--http1.1", *where)
            sent += web.curl(urls, "--http1.1", "--tls-max", "1.2", *where)
            for url in urls:  # nginx and this curl do not get along over a connection that is used again
                sent += web.curl([url], "--http2", *where)
    capture = sk.open(made.path)
    rows = http_rows(capture, site.port)
    columns = ("method", "path", "status", "response_body_bytes", "client_port", "pid")
    assert rows.select(columns).rows() == [
        (r.method, r.path, r.status, r.body_bytes, r.client_port, r.client_pid) for r in sent
    ]
    assert rows["version"].to_list() == ["HTTP/1.1"] * (2 * len(urls)) + ["HTTP/2"] * len(urls)
    assert set(rows["server_pid"]) <= set(site.worker_pids)
    assert rows["request_frame"].null_count() == rows["response_frame"].null_count() == 0
    # The packets of the same recording, opened with the secrets, say the same to the nanosecond.
    opened = sk.open(made.path, keylog=keys)
    assert opened.table("tls").filter(pl.col("server_port") == site.port).collect()["decrypted"].all()
    for name in TABLES:
        ours, theirs = (c.table(name).collect() for c in (capture, opened))
        assert ours.height > 0
        assert_frame_equal(ours, theirs)
    parts = capture.table("latency").filter(pl.col("kind") == "http").collect()
    assert parts.height == len(sent)
    assert parts["app_ns"].null_count() == 0
    assert (parts["app_ns"] >= 0).all()
    lost = made.losses()
    assert not [name for name in lost if name.startswith("tls_") and name != "tls_without_library"], lost


@pytest.mark.parametrize(("limit", "size"), [("1M", 1_000_017), ("100000", 300_007)])
def test_bytes_of_a_large_transfer(tmp_path, limit, size):
    script = Path(tls_bulk.__file__)
    with certificate("kiosk.test") as made_of:
        command = [sys.executable, str(script), made_of.cert, made_of.key, str(size)]
        argv = [*STRATOKIT, "record", "-o", str(tmp_path / "a.parquet"), "--tls", "--tls-bytes", limit]
        done = subprocess.run([*argv, "--", *command], capture_output=True, text=True, check=True)
    rows = pl.read_parquet(tmp_path / "a.parquet").filter(
        pl.col("kind") == "plaintext", pl.col("cap_len") > 1
    )
    lost = pl.read_parquet(tmp_path / "a.parquet").filter(pl.col("kind") == "loss")
    counted = dict(lost.select("counter", "amount").rows())
    for direction in ("in", "out"):
        part = rows.filter(pl.col("direction") == direction).sort("tls_position")
        assert part["orig_len"].sum() == size
        ends = (part["tls_position"] + part["orig_len"]).to_list()
        assert part["tls_position"].to_list() == [0, *ends[:-1]]
        if direction == "in" or limit == "1M":  # reads are of 5003 bytes
            found = hashlib.sha256(b"".join(part["data"])).hexdigest()
            assert found == json.loads(done.stdout.splitlines()[0])["sha256"]
        else:
            assert part["cap_len"].sum() == int(limit)
            assert counted["tls_cut_bytes"] == size - int(limit)
    assert ("tls_cut_bytes" in counted) == (limit != "1M")


# In memory BIOs, with a copy of OpenSSL in a place of its own that no process had mapped before.
ASYNC = """
import asyncio, ssl, sys, time
time.sleep(0.6)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
async def ask(number):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]), ssl=context)
    for path in (f"/index.html?{number}", "/large.bin"):
        writer.write(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
        head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode().lower()
        await reader.readexactly(int(head.split("content-length: ")[1].split("\\r")[0]))
    writer.close()
async def main():
    await asyncio.gather(*(ask(number) for number in range(3)))
asyncio.run(main())
"""


def test_libraries_wherever_and_whenever(tmp_path):
    library = Path(_ssl_library())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (library.name, library.name.replace("ssl", "crypto")):
        shutil.copy(library.with_name(name), elsewhere)
    bundle = tmp_path / "bundle"
    boxed.root(bundle / "rootfs", ("sh", "curl"))
    with certificate("kiosk.test") as made_of, nginx.nginx(certificate=made_of) as site:
        asks = f"read line; /bin/curl -sk {site.url('/index.html?boxed')} && echo; read line"
        (bundle / "config.json").write_text(json.dumps(_config(asks)))
        runc = ["runc", "--root", str(tmp_path / "state"), "run", "-b", str(bundle), tmp_path.name]
        with (
            recording(tmp_path / "a.parquet", "--tls") as made,
            subprocess.Popen(runc, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as box,
        ):
            argv = ["/usr/bin/python3", "-c", ASYNC, str(site.port)]
            subprocess.run(argv, env={"LD_LIBRARY_PATH": str(elsewhere)}, check=True)
            box.stdin.write("\n")
            box.stdin.flush()
            assert box.stdout.readline() == nginx.INDEX.decode()
            box.communicate("\n")
    # What nginx wrote and read is in the recording too: here it is about the others.
    ours = pl.any_horizontal(pl.col(name) == site.port for name in ("src_port", "dst_port"))
    plain = made.rows("plaintext").filter(ours, pl.col("pid").is_in(site.worker_pids).not_())
    said = {bytes(data).split(b"\r\n")[0].decode() for data in plain.filter(direction="out")["data"]}
    assert said == {
        *(f"GET /index.html?{path} HTTP/1.1" for path in ("0", "1", "2", "boxed")),
        "GET /large.bin HTTP/1.1",
    }
    assert plain["cipher_next_seq"].null_count() == 0
    rows = http_rows(sk.open(made.path), site.port)
    assert sorted(rows.select("path", "status").rows()) == sorted(
        [(f"/index.html?{path}", 200) for path in ("0", "1", "2", "boxed")] + [("/large.bin", 200)] * 3
    )
    assert rows["pid"].null_count() == 0
    # Each answer is on the socket of its question.
    asked = plain.filter(pl.col("direction") == "out")
    assert asked.group_by("socket_cookie").len()["len"].sort().to_list() == [1, 2, 2, 2]


def _config(script):
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    }


def _ssl_library():
    code = "import ssl; print(next(l.split()[-1] for l in open('/proc/self/maps') if 'libssl' in l))"
    return subprocess.check_output(["/usr/bin/python3", "-c", code], text=True).strip()
