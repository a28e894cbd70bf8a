"""OpenSSL's server and client, recorded by eBPF: our rows equal what the client printed."""

from __future__ import annotations

import polars as pl
import pytest
from recording import recording
from workloads import openssl

import stratokit as sk

pytestmark = pytest.mark.kernel

# What s_client prints, in our words (RFC 8446 section 4.1.2, and the names of IANA's registry).
VERSIONS = {"TLSv1.2": "TLS 1.2", "TLSv1.3": "TLS 1.3"}
SUITES = {
    "ECDHE-ECDSA-AES256-GCM-SHA384": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
}


def test_each_handshake_is_a_row(tmp_path):
    with openssl.s_server() as site, recording(tmp_path / "a.parquet") as made:
        done = [
            *openssl.resume(site, tmp_path, "-tls1_2"),
            *openssl.resume(site, tmp_path, "-tls1_3"),
            openssl.s_client(site, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            openssl.s_client(site, "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305", name="b.test"),
            openssl.s_client(site, "-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
        ]
    assert [d.resumed for d in done] == [False, True, False, True, False, False, False]
    rows = sk.open(made.path).table("tls").filter(pl.col("server_port") == site.port).collect().sort("ts")
    assert rows.select("sni", "version", "cipher", "resumed", "pid").rows() == [
        (d.sni, VERSIONS[d.version], SUITES.get(d.cipher, d.cipher), d.resumed, d.client_pid) for d in done
    ]
    assert rows["alpn"].to_list() == [["http/1.0"]] * len(done)
    # Where the choice is not encrypted.
    chosen = rows.filter(pl.col("version") == "TLS 1.2")["alpn_chosen"].to_list()
    assert chosen == [d.alpn for d in done if d.version == "TLSv1.2"]
    shown = rows.filter((pl.col("version") == "TLS 1.2") & ~pl.col("resumed"))
    assert set(shown["cert_subject"]) == {f"CN={site.name}"}
    assert set(shown["cert_names"].list.first()) == {site.name}
    assert set(rows["server_pid"]) == {site.pid}
    assert rows["alert"].null_count() == len(done)
    assert (rows["server_hello_ns"] > 0).all()
    assert (rows["handshake_ns"] >= rows["server_hello_ns"]).all()


def test_a_refused_version_is_an_alert(tmp_path):
    with openssl.s_server("-tls1_3") as site, recording(tmp_path / "a.parquet") as made:
        done = openssl.s_client(site, "-tls1_2")
    assert done.alert == "protocol version"
    [row] = sk.open(made.path).table("tls").filter(pl.col("server_port") == site.port).collect().to_dicts()
    assert (row["sni"], row["version"], row["alert"]) == (site.name, None, "protocol_version")
    assert (row["alert_by"], row["pid"]) == ("server", done.client_pid)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_key_log_opens_what_openssl_encrypted(tmp_path, version):
    keys = tmp_path / "keys.log"
    with openssl.s_server() as site, recording(tmp_path / "a.parquet") as made:
        done = openssl.s_client(site, version, "-keylogfile", str(keys))
    capture = sk.open(made.path, keylog=keys)
    [row] = capture.table("tls").filter(pl.col("server_port") == site.port).collect().to_dicts()
    assert (row["decrypted"], row["alpn_chosen"]) == (True, done.alpn)
    [row] = capture.table("http").filter(pl.col("server_port") == site.port).collect().to_dicts()
    assert (row["method"], row["path"], row["version"], row["status"]) == ("GET", "/", "HTTP/1.0", 200)
    assert (row["pid"], row["server_pid"]) == (done.client_pid, site.pid)
    without = sk.open(made.path).table("http").filter(pl.col("server_port") == site.port).collect()
    assert without.is_empty()
