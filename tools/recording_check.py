#!/usr/bin/env python3
"""Record a known conversation here and say what of it was recorded; 1 if something lacks.

Two JSON lines: with all system calls, and with none, where owners of sockets are learned otherwise.

Only bcc and the standard library are imported, so this runs with a distribution's Python.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from stratokit.errors import FormatError
from stratokit.formats import spool
from stratokit.record.bcc import import_bcc
from stratokit.schema import load

FILES, MESSAGES = 7, 11
USED = 5  # as in schemas/events/owner.toml
RECORD = """
import sys, pathlib
from stratokit.record.options import RecordOptions
from stratokit.record.session import record
path = pathlib.Path(sys.argv[1])
record(RecordOptions(path, path, syscalls=sys.argv[2]))
"""


def work(folder: Path) -> None:
    """Files and a TCP conversation, by this process."""
    for index in range(FILES):
        os.close(os.open(folder / f"checked-{index}", os.O_CREAT | os.O_RDWR))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        server.accept()[0] as other,
    ):
        for _ in range(MESSAGES):
            one.sendall(b"checked")
            other.recv(100)
        other.sendall(b"checked")
    subprocess.run(["/bin/true"], check=True)


def chunks(path: Path) -> list[spool.Chunk]:
    try:
        return list(spool.SpoolReader(path).chunks())
    except (FormatError, OSError, ValueError):
        return []


def events(path: Path) -> Counter[str]:
    """Records of each event, and how many are of the work: calls that opened its files, its payload."""
    names = {event.id: event.name for event in load.events().values()}
    found: Counter[str] = Counter()
    at_event = next(f.offset for f in load.events()["packet"].fields if f.name == "event")
    at_how = next(f.offset for f in load.events()["owner"].fields if f.name == "how")
    for chunk in chunks(path):
        if chunk.type != spool.EVENTS:
            continue
        data, position = bytes(chunk.payload), 0
        while position < len(data):
            length = int.from_bytes(data[position : position + 4], "little") & 0x3FFFFFFF
            record = data[position + 8 : position + 8 + length]
            name = names.get(int.from_bytes(record[at_event : at_event + 2], "little"), "unknown")
            found[name] += 1
            found["opened"] += name == "syscall" and b"/checked-" in record
            found["learned"] += name == "owner" and record[at_how] == USED
            found["payload"] += name == "packet" and record.endswith(b"checked")
            position += 8 + (length + 7 & ~7)
    return found


def check(syscalls: str) -> bool:
    """Print the line of one recording; whether all is there."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "check.spool")
        process = subprocess.Popen(
            [sys.executable, "-c", RECORD, str(path), syscalls], stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 300
        while not any(c.type == spool.TABLE and c.json()["table"] == "cgroups" for c in chunks(path)):
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                said = process.communicate()[1][-6000:]
                failed = {"kernel": platform.release(), "failed": said, "code": process.returncode}
                print(json.dumps(failed))
                return False
            time.sleep(0.2)
        work(Path(place))
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
        found = events(path)
        kept = chunks(path)
    totals = next(c.json()["totals"] for c in reversed(kept) if c.type == spool.COUNTERS)
    counters = load.counters()
    lost = {name: n for name, n in totals.items() if name in counters and counters[name].loss}
    opening = next(c.json() for c in kept if c.type == spool.OPENING)
    calls = syscalls != "none"
    expected = {"opened": FILES if calls else 0, "payload": 2 * (MESSAGES + 1)}
    whole = all(found[name] == n for name, n in expected.items()) and kept[-1].type == spool.CLOSING
    whole &= all(found[name] for name in ("socket", "owner", "process"))
    whole &= bool(found["syscall"]) == calls and (calls or not opening["has_btf"] or found["learned"] > 0)
    print(
        json.dumps(
            {
                "kernel": platform.release(),
                "python": platform.python_version(),
                "bcc": getattr(import_bcc(), "__version__", "unknown"),
                "btf": opening["has_btf"],
                "syscalls": syscalls,
                "whole": whole,
                **{name: found[name] for name in sorted(found)},
                "lost": lost,
                **({"said": said[-400:]} if said else {}),
            }
        )
    )
    return whole


def main() -> int:
    return 0 if all([check("all"), check("none")]) else 1


if __name__ == "__main__":
    sys.exit(main())
