"""The ring buffer is emptied without loss, by the barrier and, where the kernel refuses that, by walking."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from stratokit.formats import events
from stratokit.record.loader import Kernel
from stratokit.record.opening import layouts
from stratokit.record.options import RecordOptions

pytestmark = pytest.mark.kernel
KNOWN = events.layouts({"events": layouts()})


@pytest.mark.parametrize("barrier", [True, False])
def test_every_record_arrives_once_and_whole(barrier):
    count = 100_003
    options = RecordOptions(
        Path("/x"), Path("/y"), syscalls="write", packets=False, sockets=False, buffer_bytes=1 << 25
    )
    found = bad = 0

    def take(span):
        nonlocal found, bad
        batches, unreadable = events.split(span, KNOWN)
        bad += unreadable
        if "syscall" in batches:
            found += int((batches["syscall"].fixed["pid"] == work.pid).sum())

    with contextlib.closing(Kernel(options)) as kernel:
        if not barrier:
            kernel.ring._barrier = None
        kernel.attach()
        command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"]
        with subprocess.Popen(command) as work:
            while work.poll() is None:
                kernel.ring.drain(take)
        kernel.detach()
        while kernel.ring.pending():
            kernel.ring.drain(take)
        totals = kernel.totals()
    assert bad == 0
    assert totals["syscall_no_space"] == 0
    assert found == count
