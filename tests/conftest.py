"""Kernel tests run wherever they can; in CI, one that could have run but did not is a failure.

`kernel` marks tests that record with eBPF. They skip themselves without root or BTF. With CI=true on a
machine that has both, the run fails when any of them was skipped or deselected, or when none passed:
otherwise a broken set-up would look like success. Those marked `optional` need what is installed by hand.
`--kernel-elsewhere` says that another run has them (see tools/test.sh).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BTF = Path("/sys/kernel/btf/vmlinux")


def why_no_kernel_tests() -> str | None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "recording with eBPF needs root"
    if not BTF.exists():
        return f"recording with eBPF needs {BTF}"
    return None


class KernelVerdict:
    """Counts what became of the kernel tests and turns a silent absence into a failure."""

    def __init__(self) -> None:
        self.passed_count = 0
        self.absent: list[str] = []

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        for item in items:
            if item.get_closest_marker("kernel") and not item.get_closest_marker("bench"):
                self.absent.append(f"deselected: {item.nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "kernel" not in report.keywords:
            return
        if report.skipped and "optional" not in report.keywords:
            self.absent.append(f"skipped: {report.nodeid}")
        elif report.when == "call" and report.passed:
            self.passed_count += 1

    @property
    def failed(self) -> bool:
        return bool(self.absent) or self.passed_count == 0

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.failed and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.failed:
            return
        terminalreporter.section("kernel tests must run here (CI=true, root, BTF)")
        for line in self.absent or ["no kernel test passed"]:
            terminalreporter.write_line(line)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kernel-elsewhere", action="store_true", help="do not insist on kernel tests: another run has them"
    )
    parser.addoption(
        "--whole-corpus", action="store_true", help="compare with other programs on all captures, not on some"
    )


def pytest_configure(config: pytest.Config) -> None:
    worker = hasattr(config, "workerinput")  # under pytest-xdist the controller sees every report
    insist = os.environ.get("CI") == "true" and not config.getoption("--kernel-elsewhere")
    if insist and not worker and why_no_kernel_tests() is None:
        config.pluginmanager.register(KernelVerdict(), "kernel-verdict")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and (reason := why_no_kernel_tests()):
        pytest.skip(reason)
