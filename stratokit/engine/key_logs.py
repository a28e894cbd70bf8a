"""TLS secrets beside and inside captures: key logs, and the secrets blocks of pcapng files.

A secrets block (draft-ietf-opsawg-pcapng section 4.7) has a type, a length, and what the type says: for TLS
a key log. A capture that has no such blocks to be written again keeps a key log as metadata.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from stratokit.errors import FormatError, UsageError
from stratokit.formats.pcapng import blocks, cold

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


_LINE = re.compile(rb"[A-Z0-9_]+ [0-9A-Fa-f]{64} [0-9A-Fa-f]+")


def written_since(path: str | os.PathLike[str], offset: int) -> dict[str, str]:
    """Metadata with the secrets that a key log got behind `offset` bytes; all of one that is shorter by now.

    Only its lines of secrets are taken; of too many the last. Empty where there are none.

    Raises:
        FormatError: the key log cannot be read.
    """
    text = read_file(path)
    new = text[offset:] if len(text) >= offset else text
    lines = [line for line in new.splitlines() if _LINE.fullmatch(line.strip())]
    while sum(len(line) + 1 for line in lines) > cold.BYTES_MAX:
        lines = lines[len(lines) // 2 + 1 :]
    return {blocks.KEY_LOG: b"\n".join(lines).decode("ascii") + "\n"} if lines else {}


def carried(metadata: Mapping[str, str]) -> bytes:
    """The key logs that a capture carries, from secrets blocks of its pcapng file or embedded."""
    found = [metadata.get(blocks.KEY_LOG, "").encode("latin-1", "replace")]
    for block in cold.from_text(metadata.get(cold.METADATA_KEY, "")):
        if block.kind == blocks.SECRETS and len(block.body) >= 8:
            kind, size = struct.unpack("<II", block.body[:8])
            if kind == blocks.TLS_KEY_LOG:
                found.append(block.body[8 : 8 + size])
    return b"\n".join(filter(None, found))


def joined(captures: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Metadata with the secrets of several captures, as far as one capture carries so much."""
    found: list[bytes] = []
    for metadata in captures:
        log = carried(metadata)
        if log and sum(map(len, found)) + len(log) <= cold.BYTES_MAX:
            found.append(log)
    return {blocks.KEY_LOG: b"\n".join(found).decode("latin-1")} if found else {}


def stripped(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata of a capture without any secrets, of TLS or of anything else."""
    found = {key: text for key, text in metadata.items() if key != blocks.KEY_LOG}
    rare = cold.from_text(metadata.get(cold.METADATA_KEY, ""))
    if rare:
        found[cold.METADATA_KEY] = cold.to_text([block for block in rare if block.kind != blocks.SECRETS])
    return found


def embedded(metadata: Mapping[str, str], path: str | os.PathLike[str]) -> dict[str, str]:
    """Metadata of a capture with the secrets of a key log, in front of all packets.

    Raises:
        FormatError: the key log cannot be read.
        UsageError: it holds no secret, or more than a capture carries.
    """
    from stratokit.protocols.tls_keys import read_keylog

    text = read_file(path)
    if not read_keylog(text):
        raise UsageError(f"{path} holds no secrets of TLS")
    if len(text) > cold.BYTES_MAX:
        raise UsageError(
            f"{path} is larger than {cold.BYTES_MAX >> 20} MiB: a capture does not carry so much"
        )
    rare = cold.from_text(metadata.get(cold.METADATA_KEY, ""))
    if not rare:
        before = [metadata[blocks.KEY_LOG]] if blocks.KEY_LOG in metadata else []
        return {**metadata, blocks.KEY_LOG: "\n".join([*before, text.decode("latin-1")])}
    rare.insert(1, cold.ColdBlock(blocks.SECRETS, 0, blocks.secrets_body(text)))  # behind the section header
    return {**metadata, cold.METADATA_KEY: cold.to_text(rare)}
