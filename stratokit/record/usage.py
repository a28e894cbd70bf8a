"""What a recording used and did between two looks, and what it would have used had it left something out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

# In this order: what tells least for what it costs is left out first.
PAYLOAD, DATA, PLAINTEXT, BUSY_CALLS, CALLS, DROPS, PACKETS = range(7)
STEPS = (
    "packet payload",
    "data of system calls",
    "plaintext of TLS",
    "busy system calls",
    "system calls",
    "dropped packets",
    "packets",
)
# Counts what each leaves out, but for calls whose tracepoints are detached.
COUNTERS = (
    "packet_payload_shed",
    "syscall_data_shed",
    "tls_shed_bytes",
    "syscall_shed",
    "",
    "drop_shed",
    "packet_shed",
)
# Busy calls are the most frequent ones that make up so much of all.
BUSY_SHARE = 0.8
# What a run of a program does beside takes as long as to copy so many bytes.
RUN_BYTES = 2048
# Of what is seen and then left out so much of the time of programs is saved.
LEFT_OUT_SAVES = 0.7


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What was used and done between two looks, `span_ns` apart; `written` is the total so far.

    `recorder_ns` is CPU time of the recorder, the other times are those of kernel programs: for system calls,
    packets, dropped packets, plaintext, and all others; `busy_ns` is what all processors did. `payload`,
    `data` and `plaintext` are recorded bytes of these kinds, `drained` of all; `packets`, `drops` and
    `events` are numbers of records, `calls` those of each system call by number, `shed` what was left out
    by counter. `entered` is how many system calls there were. `hot` is this usage as far as it was on the
    processor on which programs took most time.
    """

    span_ns: int
    written: int
    recorder_ns: int = 0
    calls_ns: int = 0
    packets_ns: int = 0
    drops_ns: int = 0
    plaintext_ns: int = 0
    other_ns: int = 0
    busy_ns: int = 0
    entered: int = 0
    drained: int = 0
    payload: int = 0
    data: int = 0
    plaintext: int = 0
    packets: int = 0
    drops: int = 0
    events: int = 0
    calls: dict[int, int] = dataclasses.field(default_factory=dict)
    shed: dict[str, int] = dataclasses.field(default_factory=dict)
    hot: Usage | None = None

    @property
    def cpu_ns(self) -> int:
        """All of it."""
        programs = self.calls_ns + self.packets_ns + self.drops_ns + self.plaintext_ns + self.other_ns
        return self.recorder_ns + programs


def foreseen(usage: Usage, steps: Collection[int], spared: Collection[int]) -> float:
    """CPU time in nanoseconds that the same would have taken with these steps."""
    per_byte = usage.recorder_ns / max(usage.drained, 1)
    others = max(usage.drained - usage.payload - usage.data - usage.plaintext, 0)
    head_ns = per_byte * others / max(usage.events, 1)  # for the recorder to write a record without these
    count = sum(usage.calls.values())

    def copied(programs_ns: int, amount: int, runs: int) -> float:
        """What bytes cost that are not taken, in the program and in the recorder."""
        return programs_ns * amount / max(amount + RUN_BYTES * runs, 1) + per_byte * amount

    calls = usage.calls_ns + head_ns * count + per_byte * usage.data
    packets = usage.packets_ns + head_ns * usage.packets + per_byte * usage.payload
    drops = usage.drops_ns + head_ns * usage.drops
    plaintext = usage.plaintext_ns + per_byte * usage.plaintext
    saved = 0.0
    if CALLS in steps:
        saved += calls
    else:
        if DATA in steps:
            saved += copied(usage.calls_ns, usage.data, count)
        if BUSY_CALLS in steps:
            share = sum(usage.calls[call] for call in busy(usage, spared)) / max(count, 1)
            saved += LEFT_OUT_SAVES * share * (calls - saved)
    if PACKETS in steps:
        saved += packets - (1 - LEFT_OUT_SAVES) * usage.packets_ns
    elif PAYLOAD in steps:
        saved += copied(usage.packets_ns, usage.payload, usage.packets)
    if DROPS in steps:
        saved += LEFT_OUT_SAVES * drops
    if PLAINTEXT in steps:
        saved += LEFT_OUT_SAVES * plaintext
    return usage.cpu_ns - saved


def bytes_share(step: int, usage: Usage, spared: Collection[int]) -> float:
    """How much of what is written a step would save, about: by bytes where it leaves out bytes, else by
    records.
    """
    if step == PAYLOAD:
        return usage.payload / max(usage.drained, 1)
    if step == DATA:
        return usage.data / max(usage.drained, 1)
    if step == PLAINTEXT:
        return usage.plaintext / max(usage.drained, 1)
    if step == DROPS:
        return usage.drops / max(usage.events, 1)
    if step == PACKETS:
        return usage.packets / max(usage.events, 1)
    chosen = busy(usage, spared) if step == BUSY_CALLS else usage.calls
    return sum(usage.calls[call] for call in chosen) / max(usage.events, 1)


def busy(usage: Usage, spared: Collection[int]) -> frozenset[int]:
    """The most frequent calls, until they make up BUSY_SHARE of all that may be left out."""
    found = {call: n for call, n in usage.calls.items() if n and call not in spared}
    total, sum_, chosen = sum(found.values()), 0, set()
    for call in sorted(found, key=lambda call: -found[call]):
        if sum_ >= BUSY_SHARE * total:
            break
        chosen.add(call)
        sum_ += found[call]
    return frozenset(chosen)


def rate(step: int, usage: Usage) -> float:
    """How often what a step leaves out comes, a second."""
    amount = usage.shed.get(COUNTERS[step], 0) if COUNTERS[step] else usage.entered
    return amount * 1e9 / max(usage.span_ns, 1)
