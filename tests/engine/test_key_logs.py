"""Keys in captures: embedded, stripped, carried from one format to another, used without being named."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import spool_bytes
from helpers.frames import eth, ipv4, pcap, tcp
from helpers.tls_talk import EXPECTED, talk
from helpers.traffic import Connection, Packets, cut

from stratokit.engine.capture import Capture
from stratokit.engine.convert import Choices, convert_files
from stratokit.errors import UsageError

COLUMNS = ("method", "path", "host", "status", "response_body_bytes")


@pytest.fixture
def talked(tmp_path: Path) -> tuple[Path, Path]:
    """A capture of TLS 1.3, and its key log."""
    sent, keylog = talk(None)
    packets = Packets()
    connection = Connection(packets)
    for side, data in sent:
        for part in cut(data, list(range(1400, len(data), 1400))):
            connection.send(connection.server if side else connection.client, part)
    connection.close()
    frames = []
    for row in packets.added:
        segment = tcp(
            row["data"][row["payload_offset"] :],
            row["src_port"],
            row["dst_port"],
            row["tcp_seq"],
            row["tcp_ack"],
            row["tcp_flags"],
        )
        frames.append(eth(ipv4(segment, source=row["src_ip"], destination=row["dst_ip"])))
    (tmp_path / "a.pcap").write_bytes(pcap(frames))
    (tmp_path / "keys.log").write_bytes(keylog)
    return tmp_path / "a.pcap", tmp_path / "keys.log"


def requests(path: Path) -> list[tuple[object, ...]]:
    return Capture.open(path).table("http").select(COLUMNS).collect().rows()


def convert(source: Path, name: str, embed: Path | None = None, strip: bool = False) -> Path:
    convert_files([source], source.with_name(name), None, Choices(embed_keys=embed, strip_keys=strip))
    return source.with_name(name)


@pytest.mark.parametrize(
    "through", [["b.parquet"], ["b.pcapng"], ["b.parquet", "c.pcapng", "d.parquet", "e.pcapng"]]
)
def test_embedded_keys_open_what_is_inside(talked: tuple[Path, Path], through: list[str]) -> None:
    file, keys = talked
    assert requests(file) == []
    for name in through:
        file = convert(file, name, keys if name == through[0] else None)
        assert requests(file) == EXPECTED
    bare = [convert(file, f"bare.{suffix}", strip=True) for suffix in ("parquet", "pcapng")]
    secret = keys.read_bytes().split()[-1]
    for stripped in bare:
        assert requests(stripped) == []
        assert secret not in stripped.read_bytes()
    assert requests(convert(bare[1], "again.pcapng", keys)) == EXPECTED


def test_other_keys_can_be_put_in_their_place(talked: tuple[Path, Path]) -> None:
    file, keys = talked
    wrong = keys.with_name("wrong.log")
    wrong.write_bytes(b"CLIENT_RANDOM " + b"00" * 32 + b" " + b"11" * 48 + b"\n")
    for name in ("x.pcapng", "x.parquet"):
        first = convert(file, name, keys)
        assert requests(convert(first, f"both-{name}", wrong)) == EXPECTED
        assert requests(convert(first, f"other-{name}", wrong, strip=True)) == []


def test_wireshark_reads_them_too(talked: tuple[Path, Path]) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    file, keys = talked
    out = convert(file, "b.pcapng", keys)
    command = [
        "tshark",
        "-n",
        "-r",
        str(out),
        "-d",
        "tcp.port==8080,tls",
        "-Y",
        "http.request",
        "-T",
        "fields",
    ]
    said = subprocess.run([*command, "-e", "http.request.uri"], check=True, capture_output=True, text=True)
    assert said.stdout.split() == [path for _, path, *_ in EXPECTED]


def test_what_cannot_be_is_said_before_anything_is_written(talked: tuple[Path, Path]) -> None:
    file, keys = talked
    empty = keys.with_name("empty.log")
    empty.write_bytes(b"# nothing\n")
    with pytest.raises(UsageError, match="holds no secrets of TLS"):
        convert(file, "b.parquet", empty)
    with pytest.raises(UsageError, match="cannot carry keys"):
        convert(file, "b.pcap", keys)
    assert not list(file.parent.glob("b.*"))


def test_what_programs_write_while_recording_is_embedded(tmp_path):
    old, new = (f"CLIENT_RANDOM {digit * 64} {digit * 96}\n" for digit in "ab")
    log = tmp_path / "keys.log"
    log.write_text(f"{old}# a remark\n{new}passw0rd\n{new[:50]}")
    spool_bytes.syscall_rows(tmp_path, (), keylog=str(log), keylog_offset=len(old))
    capture = Capture.open(tmp_path / "made.parquet")
    assert set(capture.secrets) == {bytes.fromhex("bb" * 32)}
    assert b"passw0rd" not in (tmp_path / "made.parquet").read_bytes()
    assert "keylog" in capture.files[0].carried


def test_a_key_log_that_began_anew_is_taken_whole(tmp_path):
    line = f"CLIENT_RANDOM {'c' * 64} {'d' * 96}\n"
    log = tmp_path / "keys.log"
    log.write_text(line)
    spool_bytes.syscall_rows(tmp_path, (), keylog=str(log), keylog_offset=10_000)
    assert set(Capture.open(tmp_path / "made.parquet").secrets) == {bytes.fromhex("cc" * 32)}
    log.unlink()
    (tmp_path / "made.spool").unlink()
    spool_bytes.syscall_rows(tmp_path, (), keylog=str(log), keylog_offset=0)
    assert not Capture.open(tmp_path / "made.parquet").secrets
