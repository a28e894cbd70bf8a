"""Which frames tshark selects: asked live, and as facts in tests/filters/tshark.tsv."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.helpers.tshark import need

FACTS = Path(__file__).parents[1] / "filters" / "tshark.tsv"
# Names stay numbers, times are UTC, and messages come together whatever order their segments came in.
OPTIONS = ("-n", "-o", "tcp.reassemble_out_of_order:TRUE", "--disable-protocol", "grpc")
# HTTP/2 without TLS has no port of its own: those of the captures here.
AS_HTTP2 = ("-d", "tcp.port==81,http2", "-d", "tcp.port==50051,http2")


class Fact(NamedTuple):
    """What tshark selects of a capture."""

    capture: str
    filter: str
    count: int
    digest: str


def parts(line: str) -> Fact:
    """A line of the facts; one that was not asked yet has no counts."""
    capture, text, *known = line.split("\t")
    return Fact(capture, text, int(known[0]) if known else -1, known[1] if known else "")


def facts() -> list[Fact]:
    """All facts."""
    return [parts(line) for line in FACTS.read_text().splitlines()]


def digest(numbers: Sequence[int]) -> str:
    """A short name of exactly these frame numbers."""
    return hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:12]


def frames(path: Path, text: str) -> list[int]:
    """Numbers of the frames that tshark selects."""
    command = [
        need("tshark"),
        *OPTIONS,
        *AS_HTTP2,
        "-r",
        str(path),
        "-Y",
        text,
        "-T",
        "fields",
        "-e",
        "frame.number",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"}
    )
    return [int(number) for number in done.stdout.split()]
