"""What doctor says of hosts that lack something."""

import errno

import pytest

from stratokit.record import trials


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("ID=ubuntu\nID_LIKE=debian\n", "apt-get install python3-bpfcc"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install python3-bcc"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "zypper install python3-bcc"),
        ("ID=arch\n", "pacman -S python-bcc"),
        ("ID=other\n", "apt-get install python3-bpfcc"),
    ],
)
def test_each_distribution_has_its_package(tmp_path, text, command):
    release = tmp_path / "os-release"
    release.write_text(text)
    assert trials.install_bcc(release) == command


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("[none] integrity confidentiality", True),
        ("none [integrity] confidentiality", True),
        ("none integrity [confidentiality]", False),
    ],
)
def test_a_kernel_locked_down_for_confidentiality(tmp_path, text, ok):
    path = tmp_path / "lockdown"
    path.write_text(text + "\n")
    found = trials.lockdown(path)
    assert (found.ok, found.found) == (ok, text)
    assert ("lockdown=integrity" in found.remedy) is not ok
    assert trials.lockdown(tmp_path / "missing").ok


def test_processes_that_proc_hides(tmp_path):
    assert "hidepid=0" in trials.proc_mount(tmp_path).remedy
    (tmp_path / "1").mkdir()
    (tmp_path / "1/stat").write_text("1 (init) S")
    assert trials.proc_mount(tmp_path).ok


@pytest.mark.parametrize(
    ("code", "seccomp", "words"),
    [
        (errno.ENOMEM, 0, "--buffer 8M"),
        (errno.EPERM, 2, "seccomp=unconfined"),
        (errno.EPERM, 0, "ulimit -l unlimited"),
        (errno.EINVAL, 0, "kernel of version 5.12"),
    ],
)
def test_why_there_is_no_buffer(tmp_path, code, seccomp, words):
    status = tmp_path / "status"
    status.write_text(f"NoNewPrivs:\t0\nSeccomp:\t{seccomp}\nSeccomp_filters:\t0\n")
    assert words in trials.buffer_remedy(code, status)


@pytest.mark.parametrize(("value", "may", "ok"), [("3", False, False), ("3", True, True), ("2", False, True)])
def test_perf_events(tmp_path, value, may, ok):
    path = tmp_path / "paranoid"
    path.write_text(value + "\n")
    assert trials.paranoid(path, may).ok is ok
