"""What device mode refuses before anything is recorded, and how namespaces are named."""

import os
from pathlib import Path

import pytest

from stratokit.errors import RecordError, UsageError
from stratokit.record import netns
from stratokit.record.devices import namespace_path
from stratokit.record.options import RecordOptions, Scope
from stratokit.record.session import check

NULL = Path(os.devnull)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        # Frames are everybody's: those of processes that were not chosen must not be in the file.
        ({"interfaces": ("eth0",), "scope": Scope(pids=(1,))}, "frames of everybody"),
        ({"interfaces": ("any",), "scope": Scope(pods=("shop",))}, "frames of everybody"),
        ({"interfaces": ("any",), "scope": Scope(command=True)}, "--whole-host"),
        ({"interfaces": ("eth0",), "packets": False}, "--no-packets"),
        ({"netns": ("web",)}, "--netns"),
        ({"interfaces": ("eth0",), "snaplen": 262145}, "64 to 262144"),
        ({"snaplen": 65536}, "64 to 65535"),
    ],
)
def test_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        check(RecordOptions(output=NULL, spool=NULL, **settings))


def test_frames_may_be_longer_than_packets():
    check(RecordOptions(output=NULL, spool=NULL, interfaces=("eth0",), snaplen=262144))


def test_a_namespace_is_a_name_a_process_or_a_path(tmp_path, monkeypatch):
    monkeypatch.setattr(netns, "NAMED", tmp_path)
    (tmp_path / "web").touch()
    (tmp_path / "7").touch()
    assert namespace_path("web") == tmp_path / "web"
    assert namespace_path("7") == tmp_path / "7"
    assert namespace_path(str(os.getpid())) == Path(f"/proc/{os.getpid()}/ns/net")
    assert namespace_path("/proc/self/ns/net") == Path("/proc/self/ns/net")
    with pytest.raises(RecordError, match="no network namespace wbe; there is web"):
        namespace_path("wbe")
    with pytest.raises(RecordError, match="no process 4194305"):
        namespace_path("4194305")
    with pytest.raises(RecordError, match="no network namespace /no/where"):
        namespace_path("/no/where")
