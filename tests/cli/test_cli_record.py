"""`stratokit record` around the recorder, which has its own tests: options, files, status, conversion."""

from __future__ import annotations

import io
import os

import pytest

from stratokit.cli import record as verb
from stratokit.cli.record_choices import with_cpu_limit
from stratokit.cli.status import StatusLine, line
from stratokit.record.options import (
    DEFAULT_BUSY_SHARE,
    Keep,
    Limits,
    RecordOptions,
    Result,
    Scope,
    Status,
    Trigger,
)

STATUS = Status(2_000_000_000, {"packet": 1500, "syscall": 90_000}, 12_345_678, {})


@pytest.fixture
def recorder(monkeypatch):
    """A recorder that only notes what it was asked, and what commands the conversion was."""
    asked = {"exit_code": None, "convert": [], "convert_code": 0}

    def record(options, status, _say):
        asked["options"] = options
        options.spool.write_bytes(b"spool")
        status(STATUS)
        return Result(options.spool, asked["exit_code"], "duration reached", STATUS)

    def run(arguments, check):
        assert check is False
        asked["convert"].append(arguments[1:])
        return type("Done", (), {"returncode": asked["convert_code"]})

    monkeypatch.setattr("stratokit.record.session.record", record)
    monkeypatch.setattr(verb.subprocess, "run", run)
    return asked


def test_options_reach_the_recorder(stratokit, recorder):
    done = stratokit(
        *(
            "record",
            "-o",
            "x.parquet",
            "--duration",
            "1.5s",
            "--snaplen",
            "96",
            "--io-bytes",
            "0",
            "--buffer",
            "8M",
        ),
        *("--syscalls", "network,openat", "--no-packets", "--no-sockets", "--", "sleep", "-1"),
    )
    assert (done.code, done.out) == (0, "")
    options = recorder["options"]
    assert isinstance(options, RecordOptions)
    assert (options.output.name, options.spool.name) == ("x.parquet", "x.spool")
    assert (options.duration_ns, options.buffer_bytes) == (1_500_000_000, 8 << 20)
    assert (options.snaplen, options.io_bytes) == (96, 0)
    assert (options.syscalls, options.packets, options.sockets) == ("network,openat", False, False)
    assert options.command == ("sleep", "-1")
    assert recorder["convert"] == [["-m", "stratokit", "convert", "x.spool", "x.parquet", "--remove-input"]]
    assert "Next: stratokit report x.parquet" in done.err


def test_defaults_are_those_of_the_options(stratokit, recorder):
    assert stratokit("record").code == 0
    options = recorder["options"]
    plain = RecordOptions(options.output, options.spool, limits=Limits(busy_share=DEFAULT_BUSY_SHARE))
    assert options == plain
    assert options.output.suffix == ".parquet"


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        # Who says less of what is to be kept, or where, has said nothing of what it may cost.
        (
            ["--snaplen", "96", "--no-packets", "--rotate-time", "5s", "--max-disk", "2M"],
            (None, DEFAULT_BUSY_SHARE),
        ),
        (["--keep", "1m"], (None, DEFAULT_BUSY_SHARE)),
        (["--max-cpu", "none"], (None, None)),
        (["--max-cpu", "150%"], (1.5, None)),
        (["--pid", "1", "--max-cpu", "20%"], (0.2, None)),
        (["--pid", "1"], (None, None)),
        (["--syscalls", "default"], (None, None)),
        (["--tls"], (None, None)),
        (["-i", "lo"], (None, None)),
        (["--whole-host", "--", "true"], (None, None)),
    ],
)
def test_what_a_recording_may_cost(stratokit, recorder, arguments, limits):
    stratokit("record", "-o", "x.parquet", *arguments)
    found = recorder["options"].limits
    assert (found.cpu, found.busy_share) == limits


@pytest.mark.parametrize(("kind", "share"), [("exit", DEFAULT_BUSY_SHARE), ("call", None)])
def test_what_triggers_is_not_left_out(tmp_path, kind, share):
    keep = Keep(size_bytes=1, triggers=(Trigger("", kind),))
    found = with_cpu_limit(RecordOptions(tmp_path, tmp_path, keep=keep), None, calls_named=False)
    assert found.limits == Limits(busy_share=share)


def test_a_scope_reaches_the_recorder(stratokit, recorder):
    options = ["--pid", "3", "--pid", "5", "--comm", "nginx", "--uid", "root", "--cgroup", "/a"]
    options += ["--container", "web", "--pod", "p", "--namespace", "n"]
    assert stratokit("record", "-o", "x.parquet", *options, "--", "true").code == 0
    assert recorder["options"].scope == Scope(
        (3, 5), ("nginx",), (0,), ("/a",), ("web",), ("p",), ("n",), True
    )
    assert stratokit("record", "-o", "y.parquet", "--whole-host", "--", "true").code == 0
    assert not recorder["options"].scope


def test_a_failed_command_is_told_and_no_failure_of_recording(stratokit, recorder):
    recorder["exit_code"] = 22
    done = stratokit("record", "-o", "x.parquet", "--", "curl", "nowhere")
    assert done.code == 0
    assert "curl ended with exit code 22." in done.err


def test_a_failed_conversion_keeps_the_spool(stratokit, recorder, tmp_path):
    recorder["convert_code"] = 1
    done = stratokit("record", "-o", "x.parquet")
    assert done.code == 1
    assert "the recording is kept in x.spool" in done.err
    assert (tmp_path / "x.spool").exists()


@pytest.mark.usefixtures("recorder")
def test_quiet_says_nothing(stratokit):
    assert stratokit("record", "-o", "x.parquet", "--quiet").err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["-o", "exists.parquet"], 1, "exists; --force replaces it"),
        (["-o", "no/folder/x.parquet"], 1, "there is no folder"),
        (["-o", "x.pcap"], 2, "a recording is a .parquet or .scap file"),
        (["-o", "left.parquet"], 1, "left from an earlier recording"),
        (["--duration", "soon"], 2, "is no duration; write it as 30s"),
        (["--duration", "0s"], 2, "is no duration"),
        (["--buffer", "big"], 2, "is no size; write it as 64M"),
        (["--snaplen", "x"], 2, "--snaplen"),
        (["--uid", "no such user"], 2, "there is no user 'no such user' on this host"),
        (["--whole-host"], 2, "--whole-host goes with a command"),
    ],
)
def test_nothing_starts_with_wrong_options(stratokit, recorder, tmp_path, arguments, code, reason):
    (tmp_path / "exists.parquet").write_text("precious")
    (tmp_path / "left.spool").write_text("precious")
    done = stratokit("record", *arguments)
    assert (done.code, done.out) == (code, "")
    assert reason in done.err
    assert "options" not in recorder


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--keylog", "folder"), 2, "--keylog takes a file, which folder is not"),
        (("--keylog", "pipe"), 2, "--keylog takes a file, which pipe is not"),
        (("--keylog", "nowhere/keys"), 2, "there is no folder nowhere"),
        (("--keylog", "new", "--redact", "query"), 2, "choose one"),
        (("--redact", "nonsense"), 2, "'nonsense' is no profile"),
        (("--redact", ""), 2, "no profile is named"),
        (("--redact", "addresses", "--redact-key", "pipe"), 2, "pipe is no file"),
        (("--redact", "addresses", "--redact-key", "nowhere"), 2, "cannot read the key nowhere"),
        (("--redact", "addresses", "--redact-key", "short"), 2, "is to hold 32 bytes"),
        (("--redact-key", "short"), 2, "--redact-key goes with"),
        (("--keep", "soon"), 2, "is no duration"),
        (("--keep", "10s", "--max-disk", "1G"), 2, "--keep-size is the limit"),
        (("--keep", "10s", "--rotate-time", "5s"), 2, "choose one"),
        (("--trigger", "exit"), 2, "--trigger goes with --keep"),
        (("--keep", "10s", "--before", "20s"), 2, "longer than --keep"),
        (("--max-disk", "much"), 2, "is no size"),
        (("--user", "no-such-user"), 2, "there is no user"),
        (("--user", "4294967296"), 2, "there is no user"),
        (("-o", "pipe"), 2, "a recording is a .parquet or .scap file"),
        (("-o", "pipe.parquet"), 1, "pipe.parquet is no file"),
        (("-o", "pipe.parquet", "--force"), 1, "pipe.parquet is no file"),
        (("-o", "folder"), 2, "a recording is a .parquet or .scap file"),
        (("-o", "nowhere/a.parquet"), 1, "there is no folder nowhere"),
        (("-o", "short/a.parquet"), 1, "there is no folder short"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(stratokit, recorder, tmp_path, arguments, code, reason):
    """Before anything is recorded, and without a file of any name."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "short").write_bytes(b"key")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.parquet")
    before = sorted(tmp_path.iterdir())
    done = stratokit("record", *arguments, "--duration", "1s")
    assert (done.code, done.out) == (code, "")
    assert reason in " ".join(done.err.replace("\u2502", " ").split())
    assert "options" not in recorder
    assert sorted(tmp_path.iterdir()) == before


def test_force_replaces_the_output_in_the_end(stratokit, recorder, tmp_path):
    (tmp_path / "x.parquet").write_text("old")
    assert stratokit("record", "-o", "x.parquet", "--force").code == 0
    assert recorder["convert"][0][-1] == "--force"
    assert (tmp_path / "x.parquet").read_text() == "old"


def test_the_status_line_tells_rates_and_losses():
    before = Status(1_000_000_000, {"packet": 500, "syscall": 80_000}, 1, {})
    assert (
        line(STATUS, before)
        == "2.00 s  nothing lost  12.3 MB  packet 1,000/s  syscall 10,000/s  Ctrl-C stops"
    )
    lossy = Status(2_000_000_000, {}, 5, {"packet_no_space": 1200})
    assert "lost 1,200" in line(lossy, None)


def test_the_status_line_is_for_terminals_only():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, quiet, expected in (
        (Terminal(), False, True),
        (io.StringIO(), False, False),
        (Terminal(), True, False),
    ):
        with StatusLine(stream, quiet, "recording until Ctrl-C") as status_line:
            for _ in range(2):
                status_line.update(STATUS)
        text = stream.getvalue()
        assert ("45,000/s" in text) is expected
        # That the recording began is told once wherever it goes.
        assert text.count("recording until Ctrl-C\n") == (not quiet)


def test_losses_are_told_in_sentences_at_the_end(tmp_path):
    out = io.StringIO()
    StatusLine(out, quiet=False, began="").summary(
        Status(10**9, {"packet": 3}, 5, {"packet_no_space": 2}), tmp_path / "x.parquet"
    )
    assert "3 events in 1.00 s" in out.getvalue()
    assert "lost: 2 packets were not recorded because the ring buffer was full" in out.getvalue()
