"""DNS questions with known answers: dnsmasq, a server of our own that fails in chosen ways, and dig."""

from __future__ import annotations

import os
import pwd
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from workloads.common import LOOPBACK, free_port, is_listening, program, python_server, server

ZONE = "shop.test"  # dnsmasq: known names answered, unknown ones NXDOMAIN, other zones REFUSED
BROKEN_ZONE = "broken.test"  # the failing server, by the first label: see dns_failing.py

# dig speaks names, packets and the dns table numbers: RFC 1035 sections 3.2.2 and 4.1.1, RFC 3596
TYPES = {"A": 1, "MX": 15, "TXT": 16, "AAAA": 28}
RCODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}


@dataclass(frozen=True)
class DnsServer:
    port: int
    pid: int


@dataclass(frozen=True)
class Query:
    """What dig asked and got, in numbers; rcode is None where no answer came."""

    qname: str
    qtype: int
    rcode: int | None
    transport: str
    attempts: int
    client_pid: int
    server_port: int
    answers: tuple[str, ...] = ()  # data of the answer records, as dig prints it


@contextmanager
def dnsmasq() -> Iterator[DnsServer]:
    port = free_port(socket.SOCK_DGRAM)
    argv = [program("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]
    argv += [f"--user={pwd.getpwuid(os.geteuid()).pw_name}", "--log-facility=-", "--no-resolv", "--no-hosts"]
    argv += [f"--port={port}", f"--listen-address={LOOPBACK}", "--bind-interfaces", f"--local=/{ZONE}/"]
    argv += [f"--host-record=api.{ZONE},10.0.0.7,fd00::7", f"--host-record=db.{ZONE},10.0.0.8"]
    argv += [f"--txt-record=note.{ZONE},hello", f"--mx-host={ZONE},mail.{ZONE},10"]
    with server(argv, lambda: is_listening(port, "udp") and is_listening(port, "tcp")) as process:
        yield DnsServer(port, process.pid)


@contextmanager
def failing_server() -> Iterator[DnsServer]:
    with python_server("workloads.dns_failing") as facts:
        yield DnsServer(facts["port"], facts["pid"])


def dig(at: DnsServer, name: str, qtype: str = "A", transport: str = "udp", patience_s: int = 5) -> Query:
    """One question, asked once: a second attempt of dig's comes from another port and is another flow."""
    argv = [program("dig"), "-r", f"@{LOOPBACK}", "-p", str(at.port), name, qtype, "+tries=1"]
    argv += [f"+time={patience_s}", "+noall", "+comments", "+answer"]
    if transport == "tcp":
        argv.append("+tcp")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate()[0]
    status = re.search(r"status: (\w+)", said)
    rcode = RCODES[status[1]] if status else None
    records = [line.split(None, 4) for line in said.splitlines() if line[:1] not in ("", ";")]
    answers = tuple(record[4] for record in records if len(record) == 5)
    return Query(name, TYPES[qtype], rcode, transport, 1, process.pid, at.port, answers)


def ask_again_and_again(at: DnsServer, name: str, attempts: int = 3, interval_s: float = 0.1) -> Query:
    """The same question, id and socket each time, as the C library's resolver does; by this process."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack("!6H", 0x5A17, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((LOOPBACK, at.port))
        for _ in range(attempts):
            asking.send(question)
            time.sleep(interval_s)
    return Query(name, TYPES["A"], None, "udp", attempts, os.getpid(), at.port)


def look_up(at: DnsServer, answered: int = 13, unknown: int = 5, refused: int = 3) -> list[Query]:
    """Questions to dnsmasq: `answered` succeed, `unknown` are NXDOMAIN, `refused` are REFUSED."""
    known = [("api", "A"), ("api", "AAAA"), ("db", "A"), ("db", "AAAA"), ("note", "TXT")]
    done = [dig(at, f"{name}.{ZONE}", qtype) for name, qtype in (known * answered)[:answered]]
    done += [dig(at, f"missing{i}.{ZONE}") for i in range(unknown)]
    done += [dig(at, f"host{i}.elsewhere.test") for i in range(refused)]
    return done


def look_up_broken(at: DnsServer, failed: int = 3, slow: int = 2, unanswered: int = 1) -> list[Query]:
    """Questions to the failing server; an unanswered one takes a second."""
    done = [dig(at, f"fail.{i}.{BROKEN_ZONE}") for i in range(failed)]
    done += [dig(at, f"slow.{i}.{BROKEN_ZONE}") for i in range(slow)]
    done += [dig(at, f"drop.{i}.{BROKEN_ZONE}", patience_s=1) for i in range(unanswered)]
    return done
