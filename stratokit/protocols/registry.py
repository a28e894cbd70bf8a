"""All protocols there are: every module of this folder that has a `PROTOCOL`."""

from __future__ import annotations

import functools
import importlib
import pkgutil

import stratokit.protocols
from stratokit.protocols.base import Protocol


@functools.cache
def protocols() -> dict[str, Protocol]:
    """Protocols by name, in order of their names."""
    found = {}
    for info in pkgutil.iter_modules(stratokit.protocols.__path__):
        protocol = getattr(importlib.import_module(f"stratokit.protocols.{info.name}"), "PROTOCOL", None)
        if isinstance(protocol, Protocol):
            found[protocol.name] = protocol
    return found
