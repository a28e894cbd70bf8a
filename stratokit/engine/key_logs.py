"""TLS secrets beside and inside captures: key logs, and the secrets blocks of pcapng files.

A secrets block (draft-ietf-opsawg-pcapng section 4.7) has a type, a length, and what the type says: for TLS
a key log.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from stratokit.errors import FormatError
from stratokit.formats.pcapng import blocks, cold

_TLS_KEY_LOG = 0x544C534B  # "TLSK"
LIMIT_BYTES = 1 << 28


def read_file(path: str | os.PathLike[str]) -> bytes:
    """What a key log holds.

    Raises:
        FormatError: it cannot be read, or is far larger than any key log.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from error
    if len(text) > LIMIT_BYTES:
        raise FormatError(f"{path} is larger than {LIMIT_BYTES >> 20} MiB: no key log")
    return text


def carried(metadata: Mapping[str, str]) -> bytes:
    """The key logs in secrets blocks that a capture keeps from its pcapng file."""
    found = []
    for block in cold.from_text(metadata.get(cold.METADATA_KEY, "")):
        if block.kind == blocks.SECRETS and len(block.body) >= 8:
            kind, size = struct.unpack("<II", block.body[:8])
            if kind == _TLS_KEY_LOG:
                found.append(block.body[8 : 8 + size])
    return b"\n".join(found)
