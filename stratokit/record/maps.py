"""What the recorder tells the loaded programs, and asks them, through their maps."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from typing import TYPE_CHECKING, Any

from stratokit.record import open_calls, specs
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_SCOPE_TREE, _SCOPE_NAMED = 1, 2  # as in bpf/scope.c
_SHED_CALL = 2  # as in bpf/limits.c
_ARMED = 0xFFFFFFFF  # as in bpf/common.h
_MEASURE_EVERY, _COSTS = 16, 6  # as in bpf/limits.c


class Maps:
    """The maps of a recording; `names` are the files of bpf/ that it has, `rolling`: it is in segments."""

    def __init__(self, module: Any, names: list[str], syscalls: frozenset[int], *, rolling: bool) -> None:
        self._bpf = module
        self.names = names
        self.syscalls = syscalls
        self._rolling = rolling
        self._taken: set[tuple[int, int]] = set()
        self._shed_calls: frozenset[int] = frozenset()
        self._span = 0  # of bpf/limits.c: of time in which system calls are watched, or not
        self._watched_since_ns: int | None = 0  # None: they are not
        self._endpoint_epoch = 0

    def tls_files_found(self) -> int:
        """How many files were executed or mapped to be executed for the first time."""
        return int(self._bpf[b"tls_files_found"][ctypes.c_int(0)].value)

    def take_tls_files(self) -> set[int]:
        """By which processes, since this was asked last."""
        found = {(key.inode, key.device): pid.value for key, pid in self._bpf[b"tls_files"].items()}
        new = {pid for key, pid in found.items() if key not in self._taken}
        self._taken |= found.keys()
        return new

    def choose_group(self, number: int) -> None:
        """This cgroup, and what is below it, is in scope."""
        self._bpf[b"scope_cgroups"][ctypes.c_uint64(number)] = ctypes.c_uint8(1)

    def choose_tasks(self, pids: Iterable[int]) -> None:
        """These processes, and all that they start from now on, are in scope."""
        for pid in pids:
            self._bpf[b"scope_tasks"][ctypes.c_uint32(pid)] = ctypes.c_uint8(_SCOPE_TREE)

    def choose_named(self, pids: Iterable[int]) -> None:
        """These processes have a chosen name, until they execute another program."""
        for pid in pids:
            if pid not in self.chosen_tasks():
                self._bpf[b"scope_tasks"][ctypes.c_uint32(pid)] = ctypes.c_uint8(_SCOPE_NAMED)

    def forget_task(self, pid: int) -> None:
        """The process itself is no longer in scope; what it started is."""
        with contextlib.suppress(KeyError):
            del self._bpf[b"scope_tasks"][ctypes.c_uint32(pid)]

    def chosen_tasks(self) -> set[int]:
        """Processes that are in scope by number or name."""
        return {key.value for key in self._bpf[b"scope_tasks"].keys()}  # noqa: SIM118 bcc's table is no dict

    def choose_sockets(self, cookies: Iterable[int]) -> None:
        """These sockets are in scope."""
        for cookie in cookies:
            self._bpf[b"scope_cookies"][ctypes.c_uint64(cookie)] = ctypes.c_uint8(1)

    def kernel_places(self, known: set[int]) -> tuple[set[int], dict[int, list[int]]]:
        """Addresses of code that has dropped packets so far, and stacks (innermost first) by number, but for
        those that are known.
        """
        if not {"drops", "sockets"} & set(self.names):
            return set(), {}
        stacks = self._bpf[b"kernel_stacks"]
        numbers = [key.value for key in stacks.keys()]  # noqa: SIM118 bcc's table is no dict
        places: set[int] = set()
        if "drops" in self.names:
            places = {key.value for key in self._bpf[b"drop_places"].keys()}  # noqa: SIM118
        return places, {number: list(stacks.walk(number)) for number in numbers if number not in known}

    def name_endpoints_again(self) -> None:
        """Whose addresses are whose stands in every spool: bpf/endpoints.c forgets what it has told."""
        if "endpoints" in self.names:
            self._endpoint_epoch = self._endpoint_epoch % 0xFFFF + 1
            self._bpf[b"endpoint_epoch"][ctypes.c_int(0)] = ctypes.c_uint32(self._endpoint_epoch)

    def readable(self) -> bool:
        """Whether the kernel lets us look into maps with the privileges that we have now."""
        try:
            return bool(self.totals())
        except KeyError:
            return False

    def seen(self) -> list[int]:
        """What bpf/limits.c counted: recorded calls by number, then bytes of payload and of calls' data."""
        values = [bytes(value) for value in self._bpf[b"limits_seen"][ctypes.c_int(0)]]
        return [
            sum(of_all)
            for of_all in zip(*(struct.unpack(f"={len(v) // 8}Q", v) for v in values), strict=True)
        ]

    def costs(self) -> list[list[tuple[int, int]]]:
        """(runs, ns) of programs so far, by kind as bpf/limits.c counts them and by processor."""
        table = self._bpf[b"limits_costs"]
        pairs = (map(struct.Struct("=QQ").unpack, map(bytes, table[ctypes.c_int(k)])) for k in range(_COSTS))
        return [[(runs, _MEASURE_EVERY * ns) for runs, ns in of_kind] for of_kind in pairs]

    def begin_span(self, watched_since_ns: int | None) -> None:
        """System calls are watched from then on (0: from the start), or (None) from now on not."""
        self._span += 1
        self._watched_since_ns = watched_since_ns
        span = self._bpf[b"calls_span"]
        span[ctypes.c_int(0)] = span.Leaf(self._span, watched_since_ns or 0)

    @property
    def watches_calls(self) -> bool:
        """Whether system calls are looked at."""
        return self._watched_since_ns is not None

    def shed(self, bits: int, calls: frozenset[int]) -> None:
        """Leave out what the bits of bpf/limits.c say, and these system calls; record all others."""
        self._bpf[b"limits_shed"][ctypes.c_int(0)] = ctypes.c_uint32(bits)
        if "syscalls" not in self.names:
            return
        table = self._bpf[b"syscall_specs"]
        for number in self._shed_calls ^ calls:
            spec = table[ctypes.c_int(number)]
            spec.wanted = _SHED_CALL if number in calls else 1
            table[ctypes.c_int(number)] = spec
        self._shed_calls = calls

    def recorded_calls(self) -> frozenset[int]:
        """Numbers of the system calls that may be left out: all but those that tell owners."""
        return self.syscalls - specs.owner_calls()

    def totals(self, only: Collection[str] | None = None) -> dict[str, int]:
        """What the kernel counted so far, summed over processors, by name: all, or those of `only`."""
        table = self._bpf[b"counters"]
        names = enumerate(load.kernel_counters())
        return {n: sum(table[ctypes.c_int(at)]) for at, n in names if only is None or n in only}

    def trigger_hits(self, number: int) -> int:
        """How many events met the test of a trigger."""
        return sum(self._bpf[b"trigger_hits"][ctypes.c_int(number)])

    def own_child(self, begins: bool) -> None:
        """The next process that this one starts is as little recorded as this one is (True), or it has ended
        (False).
        """
        if self._rolling:
            self._bpf[b"own_child"][ctypes.c_int(0)] = ctypes.c_uint32(_ARMED if begins else 0)

    def own_child_pid(self) -> int:
        """The process of which `own_child` was told, 0 for none."""
        return int(self._bpf[b"own_child"][ctypes.c_int(0)].value) if self._rolling else 0

    def open_since(self, tid: int) -> int:
        """CLOCK_MONOTONIC when the thread entered the call in which it is, or one of `open_calls`."""
        if "syscalls" not in self.names:
            return open_calls.NOT_IN_CALL
        if self._watched_since_ns is None:
            return open_calls.NOT_WATCHED
        try:
            start = int(self._bpf[b"syscall_starts"][ctypes.c_int(tid)].value)
        except KeyError:
            return open_calls.NOT_IN_CALL
        if start == max(self._span, 1):
            return open_calls.NOT_IN_CALL
        if start > self._watched_since_ns:
            return start
        return open_calls.BEFORE_RECORDING if self._span <= 1 else open_calls.NOT_WATCHED
