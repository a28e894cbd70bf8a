"""A capture without what its reader is not to know: `--redact`.

A profile says what goes; where it is not certain that a byte may stay, it goes too (docs/privacy.md has the
rules). Bytes are hidden in place or cut at the end of headers, so times, lengths and numbers stay true.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from stratokit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILES = {
    "headers": "values of header fields that name a secret: authorization, cookies, tokens, keys",
    "query": "query strings",
    "payload": "everything behind the headers of TCP and UDP",
    "addresses": "IP addresses, under a keyed hash that keeps prefixes, and with them all payload",
    "arguments": "arguments of programs; goes with every other profile too",
}
KEY_VARIABLE = "STRATOKIT_REDACT_KEY"
METADATA_KEY = "redacted"
_KEY_BYTES = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Redaction:
    """What to take away; `key` is for the hash of addresses."""

    profiles: tuple[str, ...]
    key: bytes = b""

    @property
    def cuts(self) -> bool:
        """Whether nothing behind headers stays."""
        return not {"payload", "addresses"}.isdisjoint(self.profiles)

    @property
    def hides(self) -> bool:
        """Whether parts of payload are to be found and hidden."""
        return not self.cuts and not {"headers", "query"}.isdisjoint(self.profiles)


def profiles(text: str) -> tuple[str, ...]:
    """The profiles that `--redact TEXT` names, with commas.

    Raises:
        UsageError: there is no such profile.
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    unknown = [word for word in words if word not in PROFILES]
    if unknown or not words:
        wrong = f"{unknown[0]!r} is no profile" if unknown else "no profile is named"
        raise UsageError(f"--redact: {wrong}; there are {', '.join(PROFILES)}")
    return words


def redaction(text: str, key_file: str | os.PathLike[str] | None = None) -> Redaction:
    """As `profiles`, with the key: from a file, else from the environment, else by chance and forgotten.

    Raises:
        UsageError: there is no such profile, or the key cannot be read or has another length.
    """
    return Redaction(profiles(text), _key(key_file))


def _key(path: str | os.PathLike[str] | None) -> bytes:
    where = f"{os.fspath(path)}" if path is not None else f"${KEY_VARIABLE}"
    if path is not None:
        if Path(path).exists() and not Path(path).is_file():
            raise UsageError(f"{where} is no file")  # a pipe would be waited for
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read the key {where}: {error.strerror}") from error
    elif KEY_VARIABLE in os.environ:
        text = os.environ[KEY_VARIABLE].encode()
    else:
        return secrets.token_bytes(_KEY_BYTES)
    if len(text) == _KEY_BYTES and path is not None:
        return text
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise UsageError(f"{where} is to hold {_KEY_BYTES} bytes as {2 * _KEY_BYTES} hexadecimal digits")
    return key


def metadata(found: Mapping[str, str], how: Redaction) -> dict[str, str]:
    """Metadata of a capture without secrets, commands, and what came from files as it was."""
    kept = {key: text for key, text in found.items() if key not in ("pcapng", "scap", "keylog", "kept")}
    if "options" in kept:
        options = json.loads(kept["options"]) or {}
        if options.get("command"):
            options["command"] = options["command"][:1]
        options["filter"] = None
        kept["options"] = json.dumps(options)
    if "addresses" in how.profiles:
        from stratokit.engine.redact.addresses import PrefixHash

        hashing = PrefixHash(how.key)
        kept = {key: hashing.text(text) for key, text in kept.items()}
    before = json.loads(found.get(METADATA_KEY, "[]"))
    kept[METADATA_KEY] = json.dumps(list(dict.fromkeys([*before, *how.profiles])))
    return kept
