"""A spool by hand: what a recorder would have written, system call by system call."""

import stat
import struct

import numpy as np

import stratokit as sk
from stratokit.engine.ingest import ingest
from stratokit.formats import spool
from stratokit.record.opening import layouts
from stratokit.schema import derive, load

NUMBERS = {call.name: number for number, call in load.syscalls("x86_64").items()}
CALL = load.events()["syscall"]
FILE = struct.Struct("<QQQII")  # struct file_info of bpf/syscalls.c


def call(name, start_ns, duration_ns, *args, ret=0, pid=10, file=None, path=b"", mode=stat.S_IFREG):
    """One ring-buffer record; `file`: (identity, inode)."""
    row = np.zeros(1, derive.numpy_dtype(CALL))
    row["event"], row["ts_ns"], row["duration_ns"] = CALL.id, start_ns, duration_ns
    row["pid"] = row["tid"] = pid
    row["syscall"], row["ret"] = NUMBERS[name], ret
    registers = struct.pack(f"<{len(args)}Q", *args)
    opened = FILE.pack(file[0], 0, file[1], 0, mode | 0o600) if file else b""
    path = path + b"\0" if path else b""
    row["args_bytes"], row["file_bytes"], row["path_bytes"] = len(registers), len(opened), len(path)
    body = row.tobytes() + registers + opened + path
    return struct.pack("<II", len(body), 0) + body + bytes(-len(body) % 8)


def syscall_rows(folder, calls, tables=(), clock=((0, 0), (10**9, 10**9)), **options):
    """Rows that a spool with `calls` becomes; `clock`: (monotonic, real) pairs, `tables`: name -> rows."""
    path = folder / "made.spool"
    writer = spool.SpoolWriter(path)
    opening = {
        "host": {"machine": "x86_64", "netns_inode": 1},
        "options": options,
        "programs": [],
        "has_btf": True,
        "syscalls": sorted(NUMBERS.values()),
        "events": layouts(),
    }
    writer.write_json(spool.OPENING, opening)
    for monotonic, real in clock:
        pair = {"monotonic_ns": monotonic, "real_ns": real, "boot_ns": monotonic, "spread_ns": 0}
        writer.write_json(spool.CLOCK, pair)
    for name, rows in dict(tables).items():
        writer.write_json(spool.TABLE, {"table": name, "monotonic_ns": 0, "rows": rows})
    writer.write(spool.EVENTS, b"".join(calls))
    writer.close()
    ingest(spool.SpoolChain([path]), folder / "made.parquet")
    return sk.open(folder / "made.parquet").rows("syscall").collect().sort("ts")


TLS = load.events()["tls"]
READ, WRITTEN = 1, 2
BEGAN, PLACED, LAST = 1, 2, 4


def said(at_ns, what, data, position=0, **more):
    """A call of OpenSSL that took 10 ns, as one ring-buffer record."""
    row = np.zeros(1, derive.numpy_dtype(TLS))
    row["event"], row["ts_ns"], row["duration_ns"] = TLS.id, at_ns, 10
    row["pid"] = row["tid"] = 7
    row["what"], row["position"], row["data_bytes"] = what, position, len(data)
    row["moved_bytes"], row["flags"], row["session"] = len(data), BEGAN | LAST, 99
    for name, value in more.items():
        row[name] = value
    body = row.tobytes() + data
    return struct.pack("<II", len(body), 0) + body + bytes(-len(body) % 8)


def tls_capture(folder, *events):
    """A capture of what programs said in TLS."""
    (folder / "made.spool").unlink(missing_ok=True)
    syscall_rows(folder, events)
    return sk.open(folder / "made.parquet")
