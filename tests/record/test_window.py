"""A flight recorder's window: what it keeps, what triggers make of it, and who may trigger."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import socket
import stat
import threading
import time

import pytest
from helpers.conversions import Conversions

from stratokit.errors import StratokitError, UsageError
from stratokit.record import control, window
from stratokit.record.alarms import Alarms
from stratokit.record.options import Keep, RecordOptions, Trigger
from stratokit.record.segments import Segment
from stratokit.record.window import Window

SECOND = 1_000_000_000


@dataclasses.dataclass
class Current:
    """The segment that is being written."""

    begin_ns: int
    row_bytes: int = 0

    @property
    def current(self):
        return dataclasses.make_dataclass("Spool", ["bytes_written"])(self.row_bytes)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a window, and feeds it segments of a second."""
    monkeypatch.setattr(window, "Conversions", Conversions)
    monkeypatch.setattr(control, "folder", lambda: tmp_path / "control")
    said, put, windows = [], [], []

    def make(**keep):
        options = RecordOptions(tmp_path / "f.parquet", tmp_path / "f.spool", keep=Keep(**keep))
        found = Window(options, said.append, put=lambda *row: put.append(row))
        found.said, found.noted = said, put
        windows.append(found)
        return found

    yield make
    for each in windows:
        each.close()


def feed(found, folder, first, last, size=100):
    for number in range(first, last):
        path = folder / f"f-{number:06}.spool"
        path.touch()
        found.sampled(number * SECOND + SECOND // 2)
        if found.is_due(Current(number * SECOND), (number + 1) * SECOND):
            found.completed(Segment(path, size, number * SECOND, (number + 1) * SECOND))
        found.tick((number + 1) * SECOND)


def numbers(segments):
    return [int(each.path.stem[2:]) for each in segments]


def test_the_window_is_as_long_as_asked(made, tmp_path):
    found = made(keep_ns=8 * SECOND, size_bytes=1 << 30)
    feed(found, tmp_path, 0, 30)
    left = sorted(path.name for path in tmp_path.glob("*.spool"))
    assert left == [f"f-{n:06}.spool" for n in range(22, 30)]


def test_the_window_is_as_large_as_asked(made, tmp_path):
    found = made(size_bytes=1000)
    for number in range(30):
        path = tmp_path / f"f-{number:06}.spool"
        path.touch()
        assert found.is_due(Current(number * SECOND, row_bytes=125), number * SECOND)
        found.completed(Segment(path, 125, number * SECOND, (number + 1) * SECOND))
        assert found.size_bytes <= 1000
    assert len(list(tmp_path.glob("*.spool"))) == 8


def test_a_trigger_takes_what_was_before_and_comes_after(made, tmp_path):
    found = made(keep_ns=8 * SECOND, size_bytes=1 << 30, before_ns=3 * SECOND, after_ns=2 * SECOND)
    feed(found, tmp_path, 0, 20)
    output = found.trigger("stratokit trigger", "why", 20 * SECOND)
    assert found.noted == [
        ("triggers", 20 * SECOND, [{"monotonic_ns": 20 * SECOND, "by": "stratokit trigger", "reason": "why"}])
    ]
    feed(found, tmp_path, 20, 22)
    (job,) = found._conversions.jobs
    assert numbers(job.segments) == [17, 18, 19, 20, 21]
    assert (str(job.output), job.since_ns) == (output, 16 * SECOND + SECOND // 2) or job.since_ns is None
    # What the capture is made of stays until it is made, whatever the window says.
    feed(found, tmp_path, 22, 60)
    assert (tmp_path / "f-000017.spool").exists()
    found._conversions.finish_one()
    feed(found, tmp_path, 60, 61)
    assert not (tmp_path / "f-000017.spool").exists()
    assert found.said[-1] == f"written: {output}"


def test_triggers_that_overlap(made, tmp_path):
    found = made(keep_ns=8 * SECOND, size_bytes=1 << 30, before_ns=2 * SECOND, after_ns=3 * SECOND)
    feed(found, tmp_path, 0, 10)
    one = found.trigger("SIGUSR1", "", 10 * SECOND)
    feed(found, tmp_path, 10, 12)
    assert found.trigger("SIGUSR1", "", 12 * SECOND) == one  # still waits: one file with both
    feed(found, tmp_path, 12, 13)
    assert not found._conversions.jobs
    feed(found, tmp_path, 13, 15)
    assert numbers(found._conversions.jobs[0].segments) == [8, 9, 10, 11, 12, 13, 14]
    two = found.trigger("SIGUSR1", "", 15 * SECOND)
    assert two != one
    feed(found, tmp_path, 15, 18)
    assert numbers(found._conversions.jobs[1].segments) == [13, 14, 15, 16, 17]


def test_a_trigger_while_the_last_segment_ends_is_another_file(made, tmp_path):
    found = made(keep_ns=8 * SECOND, size_bytes=1 << 30, after_ns=0)
    feed(found, tmp_path, 0, 8)
    one = found.trigger("SIGUSR1", "", 8 * SECOND)
    assert found.is_due(Current(8 * SECOND), 8 * SECOND)
    assert found.with_calls
    assert found.trigger("SIGUSR1", "", 8 * SECOND + 1) != one


def test_more_than_can_be_written_is_refused(made, tmp_path):
    found = made(keep_ns=8 * SECOND, size_bytes=1 << 30)
    for number in range(window.JOBS_MOST):
        assert found.trigger("SIGUSR1", "", number * SECOND)
        feed(found, tmp_path, number, number + 1)
    assert found.trigger("SIGUSR1", "", 9 * SECOND) == ""
    assert "refused" in found.said[-1]


def test_expressions_have_a_limit_and_people_have_none(made, tmp_path):
    found = made(keep_ns=8 * SECOND, size_bytes=1 << 30, limit=2)
    outputs = []
    for number in range(5):
        found.by_expression("evt.latency > 2s", number * SECOND)
        feed(found, tmp_path, number, number + 1)
        while found._conversions.jobs:
            outputs.append(found._conversions.finish_one().output)
    assert len(set(outputs)) == 2
    assert found.trigger("stratokit trigger", "") != ""


def test_what_a_killed_recorder_left_is_converted_and_numbers_go_on(made, tmp_path):
    from stratokit.formats import spool

    for number in (3, 4):
        writer = spool.SpoolWriter(tmp_path / f"f-{number:06}.spool")
        writer.write_json(spool.OPENING, {"segment": {"recording": "old", "number": number}})
        writer.close()
    found = made(keep_ns=8 * SECOND, size_bytes=1 << 30)
    assert found.path_of(1).name == "f-000005.spool"
    (job,) = found._conversions.jobs
    assert numbers(job.segments) == [3, 4]
    assert job.output.name.startswith("f-left-")
    found._conversions.finish_one()
    assert not list(tmp_path.glob("*.spool"))


def alarms(within_ns, more_than, totals):
    trigger = Trigger("t", "call", "1", more_than, within_ns)
    reading = iter(totals)
    found = Alarms([Trigger("exit", "exit"), trigger], lambda number: next(reading) if number == 1 else 0)
    return [list(found.due(SECOND * at // 10)) == ["t"] for at in range(len(totals))]


def test_an_event_alarms_whenever_it_happens():
    assert alarms(0, 0, [5, 5, 6, 6, 9, 10]) == [False, False, True, False, True, True]


def test_a_rate_alarms_once_as_long_as_it_lasts():
    slow = list(itertools.accumulate([0] + [4] * 30))  # 40 a second
    assert not any(alarms(SECOND, 50, slow))
    burst = [0] * 10 + list(itertools.accumulate([20] * 10)) + [200] * 20 + [300]
    found = alarms(SECOND, 50, burst)
    assert [at for at, due in enumerate(found) if due] == [12, 40]


def serve(path, answers):
    """A control socket that answers in the background until the block ends."""
    asked = []
    found = control.ControlSocket(
        lambda reason: asked.append(reason) or answers, lambda: {"output": "x"}, path
    )
    done = threading.Event()

    def loop():
        while not done.is_set():
            found.poll()
            time.sleep(0.002)

    thread = threading.Thread(target=loop)
    thread.start()

    def stop():
        done.set()
        thread.join()
        found.close()

    return found, asked, stop


def test_the_control_socket_answers_its_user(tmp_path):
    place = tmp_path / "run"
    found, asked, stop = serve(place, "out.parquet")
    try:
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
        assert control.ask(found.path, {"do": "status"}) == {"pid": os.getpid(), "output": "x"}
        assert control.ask(found.path, {"do": "trigger", "reason": "é"})["output"] == "out.parquet"
        assert asked == ["é"]
        for nonsense in (b"\n", b"[]\n", b'{"do": 3}\n', b"\xff\xfe\n", b"x" * 9000 + b"\n"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(found.path))
                client.sendall(nonsense)
                client.settimeout(5)
                text = b""
                with contextlib.suppress(ConnectionResetError):  # of what it did not read
                    text = b"".join(iter(lambda client=client: client.recv(4096), b""))
            assert not text or "error" in json.loads(text)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(found.path))  # one that says nothing keeps nobody else waiting
            assert control.ask(found.path, {"do": "status"})["pid"] == os.getpid()
    finally:
        stop()
    assert not found.path.exists()


def test_a_refused_trigger_is_an_error(tmp_path):
    found, _, stop = serve(tmp_path / "run", "")
    try:
        with pytest.raises(StratokitError, match="refuses: too many captures wait"):
            control.ask(found.path, {"do": "trigger"})
    finally:
        stop()


def test_a_folder_of_others_is_not_used(tmp_path):
    place = tmp_path / "run"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    found = control.ControlSocket(lambda _: "", dict, place)
    assert "not a folder of this user alone" in found.problem
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert control.ControlSocket(lambda _: "", dict, link).problem


def test_dead_sockets_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_folders", lambda: [tmp_path, pathlib.Path("/nowhere")])
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "1.sock"))
    assert list(control.recorders()) == []


@pytest.mark.parametrize(
    ("text", "kind", "test"),
    [
        ("evt.latency > 2s", "call", "c->duration_ns > 2000000000ULL"),
        ("evt.type == fsync and evt.latency > 2s", "call", "(c->nr == 74) && "),
        ("evt.type != fsync and evt.latency > 2s", "call", "!(c->nr == 74) && "),
        ("proc.exit_code != 0", "process", "(s64)x->code != 0LL"),
        ("tcp.analysis.retransmission and tcp.port == 443", "socket", "e->what == 3"),
        ("socket.new_state == CLOSE", "socket", "e->new_state == 7"),
        ("ip.addr == 10.0.0.0/8 and evt.type == retransmit", "socket", "[3] & 0xff) == 0xa"),
    ],
)
def test_expressions_become_tests(text, kind, test):
    from stratokit.engine.trigger_plan import trigger

    found = trigger(text)
    assert found["kind"] == kind
    assert test in found["test"]
    rate = trigger(f"rate({text}) > 30/m")
    assert (rate["more_than"], rate["within_ns"]) == (30, 60 * SECOND)
    assert rate["test"] == found["test"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fd.name contains etc", "cannot be decided where events happen"),
        ("http.response.code >= 500", "http.response.code"),
        ("evt.type == nonsense", "cannot be decided"),
        ("proc.exit != 0", "the nearest is proc.exit_code"),
        ("rate(evt.failed) > 5", "a rate is as"),
        ("rate(evt.failed) > 5/parsec", "a rate is as"),
        ("evt.latency > 2s and proc.exit_code != 0", "cannot be decided|known only"),
        ("", "."),
    ],
)
def test_expressions_that_cannot_be_watched(text, reason):
    from stratokit.engine.trigger_plan import trigger

    with pytest.raises(UsageError, match=reason):
        trigger(text)
