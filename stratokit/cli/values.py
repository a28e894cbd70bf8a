"""Values of options: parsed, or refused with what is right. Light, because the recorder uses it too."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import typer

from stratokit.errors import StratokitError
from stratokit.filters import literals

_SIZE = re.compile(r"(\d+)([kKmMgG]?)(i?[bB])?")
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def duration_ns(text: str) -> int:
    """30s, 500ms, 2m, 1h; a bare number is seconds."""
    ns = literals.duration_ns(text)
    if ns is None:
        ns = literals.decimal_scaled(text, literals.NS_PER_UNIT["s"])
    if ns is None or ns <= 0:
        raise typer.BadParameter(f"{text!r} is no duration; write it as 30s, 500ms, 2m or 1h")
    return ns


def size_bytes(text: str) -> int:
    """64M, 512K, 1G, or bytes."""
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no size; write it as 64M, 512K, 1G or in bytes")
    return int(match[1]) * _FACTORS[match[2].lower()]


def size_or_none_bytes(text: str) -> int:
    """As `size_bytes`, or 0."""
    return 0 if text == "0" else size_bytes(text)


def processor_share(text: str) -> float:
    """20%: a fifth of one processor; none: infinite."""
    if text == "none":
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if match is None or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is no share of a processor; write it as 20%, 150% or none")
    return float(match[1]) / 100


def user_id(text: str) -> int:
    """A user's number, or the number of the user with this name."""
    if text.isdecimal() and int(text) < 2**32 - 1:  # the last one stands for "leave as it is"
        return int(text)
    try:
        import pwd  # not where there is no recorder either

        return pwd.getpwnam(text).pw_uid
    except (KeyError, ImportError):
        raise typer.BadParameter(f"there is no user {text!r} on this host") from None


def names(text: str | None) -> list[str]:
    """a,b,c as a list."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def one_of(*known: str) -> Callable[[str | None], str | None]:
    """A callback that refuses every other value."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in known:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}")
        return value

    return check


def free_output(path: Path, force: bool) -> None:
    """Refuse, before any work is done, to write over a file or where nothing can be written."""
    if path.is_dir():
        raise StratokitError(f"{path} is a folder; name a file in it")
    if path.is_file() and not force:
        raise StratokitError(f"{path} exists; --force replaces it")
    folder = path.parent
    if not folder.is_dir():
        raise StratokitError(f"cannot write {path}: there is no folder {folder}")
