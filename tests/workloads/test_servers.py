"""The servers do what their truth says; these tests need no eBPF."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from workloads import dns, echo, slow, tls, web
from workloads.certificate import certificate
from workloads.common import find_program, free_port, is_listening
from workloads.nginx import INDEX, LARGE, nginx


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if find_program(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


needs_web = needs("nginx", "curl")
needs_dns = needs("dnsmasq", "dig")
needs_openssl = needs("openssl")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@needs_web
def test_nginx_answers_every_path_and_is_gone_afterwards():
    with nginx(workers=2) as site:
        requests = web.browse(site, 23)
        pids = [site.master_pid, *site.worker_pids]
        assert len(set(pids)) == 3

    assert Counter(request.status for request in requests) == {200: 8, 404: 4, 201: 4, 302: 4, 500: 3}
    assert [request.body_bytes for request in requests[:2]] == [len(INDEX), len(LARGE)]
    assert len({request.client_pid for request in requests}) == 23
    assert not any(is_alive(pid) for pid in pids)


@needs_web
def test_one_curl_keeps_its_connection_until_nginx_closes_it():
    with nginx() as site:
        requests = web.browse_kept_alive(site, 11)

    assert len({request.client_pid for request in requests}) == 1
    connections = [request.client_port for request in requests]
    assert len(set(connections[:6])) == 1  # the sixth is /fail, after which nginx closes
    assert len(set(connections[6:])) == 1
    assert connections[0] != connections[6]


@needs_web
def test_method_and_refused_connection_are_reported():
    with nginx() as site:
        [posted] = web.curl([site.url("/created")], "--data", "a=1", method="POST")
    [refused] = web.curl([f"http://127.0.0.1:{free_port()}/"])

    assert (posted.method, posted.status) == ("POST", 201)
    assert refused.status == 0


@needs_web
def test_slow_server_waits_as_asked():
    with slow.slow_server() as server:
        requests = web.curl([server.url("/slow?ms=70"), server.url("/drip?ms=30")])
        served = server.served()

    assert [request.status for request in requests] == [200, 200]
    assert [entry["path"] for entry in served] == ["/slow?ms=70", "/drip?ms=30"]
    assert served[0]["waited_ns"] >= 70_000_000
    assert served[1]["waited_ns"] >= 30_000_000


@needs_dns
def test_dnsmasq_answers_refuses_and_denies():
    with dns.dnsmasq() as resolver:
        queries = dns.look_up(resolver, answered=13, unknown=5, refused=3)
        over_tcp = dns.dig(resolver, "api.shop.test", transport="tcp")

    rcodes = dns.RCODES
    assert Counter(query.rcode for query in queries) == {
        rcodes["NOERROR"]: 13,
        rcodes["NXDOMAIN"]: 5,
        rcodes["REFUSED"]: 3,
    }
    assert (over_tcp.transport, over_tcp.rcode) == ("tcp", rcodes["NOERROR"])


@needs_dns
def test_failing_server_fails_as_asked():
    with dns.failing_server() as server:
        queries = dns.look_up_broken(server, failed=3, slow=2, unanswered=1)
        again = dns.ask_again_and_again(server, "drop.again.broken.test", attempts=3, interval_s=0.01)

    assert [query.rcode for query in queries] == [dns.RCODES["SERVFAIL"]] * 5 + [None]
    assert (again.rcode, again.attempts) == (None, 3)


@needs_web
@needs_openssl
def test_handshakes_complete_or_are_refused():
    with certificate("shop.test") as signed, nginx(certificate=signed) as site:
        done = tls.handshakes(site, tls12=3, tls13=2, refused=2)

    assert [one.version for one in done] == ["1.2"] * 3 + ["1.3"] * 4
    assert [one.completed for one in done] == [True] * 5 + [False] * 2


@pytest.mark.parametrize("prefork", [False, True])
def test_echo_carries_every_byte_and_names_both_processes(prefork):
    with echo.echo_server(prefork) as server:
        done = echo.converse(server, messages=17, size=997)
        assert is_listening(server.port)

    assert done.bytes_each_way == 17 * 997
    assert (server.pid != server.listener_pid) is prefork
    assert len({done.client_pid, done.server_pid, os.getpid()}) == 3
    assert not is_alive(server.pid)
    assert not is_alive(server.listener_pid)
