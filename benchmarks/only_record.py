#!/usr/bin/env python3
"""Record without converting, and print totals: what bench_recorder.py measures.

only_record.py SPOOL SYSCALLS [--calls-only | --no-packets] [--other-cgroup | --other-process] [--filter EXPR]
    [--max-cpu SHARE | --default-limit] [--snaplen BYTES] [--interface NAME] [--tls]

With --other-... what is recorded is something else than the load, which shows what that pays.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stratokit.record.cgroups import cgroup2_root
from stratokit.record.options import (
    DEFAULT_BUSY_SHARE,
    FRAME_BYTES_MOST,
    SNAPLEN_MOST,
    Filter,
    Limits,
    RecordOptions,
    Scope,
)
from stratokit.record.session import record


@contextlib.contextmanager
def another(kind: str) -> Iterator[Scope]:
    """A scope in which nothing happens."""
    if kind == "process":
        sleeper = subprocess.Popen(["sleep", "infinity"])
        yield Scope(pids=(sleeper.pid,))
        sleeper.kill()
        sleeper.wait()
    elif kind == "cgroup":
        folder = (cgroup2_root() or Path("/")) / f"stratokit-bench-{os.getpid()}"
        folder.mkdir()
        yield Scope(cgroups=(str(folder),))  # who started us removes it: the recorder gave up what that takes
    else:
        yield Scope()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("spool", type=Path)
    parser.add_argument("syscalls")
    parser.add_argument("--calls-only", action="store_true")
    parser.add_argument("--no-packets", action="store_true")
    parser.add_argument("--snaplen", type=int)
    parser.add_argument("--interface", action="append", default=[])
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--other-cgroup", dest="other", action="store_const", const="cgroup", default="")
    parser.add_argument("--other-process", dest="other", action="store_const", const="process")
    parser.add_argument("--filter", default="")
    parser.add_argument("--max-cpu", type=float)
    parser.add_argument("--default-limit", action="store_const", const=DEFAULT_BUSY_SHARE)
    chosen = parser.parse_args()
    everything = not chosen.calls_only
    most = FRAME_BYTES_MOST if chosen.interface else SNAPLEN_MOST
    options = RecordOptions(
        output=chosen.spool,
        spool=chosen.spool,
        syscalls=chosen.syscalls,
        packets=everything and not chosen.no_packets,
        sockets=everything,
        limits=Limits(cpu=chosen.max_cpu, busy_share=chosen.default_limit),
        snaplen=chosen.snaplen or most,
        interfaces=tuple(chosen.interface),
        tls=chosen.tls,
    )
    if chosen.filter:
        from stratokit.cli.plan import settings

        found = settings(chosen.filter)
        calls = found.pop("calls")
        packets = found.pop("packets")
        found.pop("syscalls")
        filter_ = Filter(**found, calls=tuple(calls))
        options = dataclasses.replace(options, filter=filter_, syscalls="none", packets=packets)
    with another(chosen.other) as scope:
        status = record(dataclasses.replace(options, scope=scope)).status
    print(json.dumps({"events": sum(status.counts.values()), "lost": sum(status.lost.values())}))


main()
