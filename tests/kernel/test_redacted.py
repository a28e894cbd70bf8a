"""Secrets of requests that were recorded for real, wherever they stand, are in no byte of what is shown."""

import polars as pl
import pytest
from helpers.contents import everything
from recording import recording
from workloads import nginx, web
from workloads.certificate import certificate
from workloads.common import LOOPBACK, find_program

import stratokit as sk
from stratokit.engine import convert
from stratokit.engine.redact import redaction

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(find_program("nginx") is None, reason="nginx is missing"),
]
TOKEN, COOKIE, QUERY = b"dG9rZW4tb2YtYmFzaWM", b"cookie-of-a-session", b"query-of-a-search"
HEADERS = ("-H", f"Authorization: Basic {TOKEN.decode()}", "--cookie", f"sid={COOKIE.decode()}")
SECRETS = (TOKEN, COOKIE, QUERY)


def ask(site, *options) -> list[web.Request]:
    return web.curl([site.url(f"/?q={QUERY.decode()}", "kiosk.test")], *HEADERS, *options)


def found(path) -> list[bytes]:
    text = everything(path)
    return [secret for secret in SECRETS if secret in text]


def test_secrets_are_in_packets_calls_and_plaintext_and_in_nothing_redacted(tmp_path, monkeypatch):
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    scope = ("--comm", "nginx", "--comm", "curl", "--syscalls", "all", "--io-bytes", "2048")
    with (
        certificate("kiosk.test") as made_of,
        nginx.nginx() as plain,
        nginx.nginx(certificate=made_of) as tls,
    ):
        where = [word for s in (plain, tls) for word in ("--resolve", f"kiosk.test:{s.port}:{LOOPBACK}")]
        with recording(tmp_path / "whole.parquet", *scope, "--tls", "--keylog", str(keys)) as whole:
            ask(plain, *where)
            ask(tls, *where, "--insecure", "--http1.1")
        with recording(tmp_path / "less.parquet", *scope, "--tls", "--redact", "headers,query") as less:
            sent = ask(plain, *where) + ask(tls, *where, "--insecure", "--http1.1")
    # All of them are in each kind of rows, in data that was read and written, and in the arguments of curl.
    for kind in ("packet", "syscall", "plaintext"):
        data = b"\0".join(whole.rows(kind)["data"].drop_nulls())
        assert [secret for secret in SECRETS if secret in data] == list(SECRETS), kind
    assert "".join(whole.rows("process")["cmdline"].drop_nulls()).count(TOKEN.decode()) == 2
    secret = keys.read_bytes().split(b"CLIENT_TRAFFIC_SECRET_0 ")[1].split()[1]
    assert secret in everything(whole.path)

    # What is taken away at the end of a recording, and at an export in any format.
    assert found(less.path) == []
    for asked in ("headers,query", "payload", "addresses"):
        for suffix in (".parquet", ".pcapng", ".pcap", ".scap"):
            out = tmp_path / f"out{suffix}"
            out.unlink(missing_ok=True)
            convert.convert_files([whole.path], out, choices=convert.Choices(redaction=redaction(asked)))
            assert found(out) == [], (asked, suffix)
            assert secret not in everything(out)
    # The requests are still there.
    rows = sk.open(less.path).table("http").sort("ts_request").collect()
    assert rows["status"].to_list() == [request.status for request in sent]
    assert less.rows("syscall").filter(pl.col("data").is_not_null()).is_empty()
