"""All protocols there are: every module of this folder that has a `PROTOCOL`, and a `PARSER` for streams."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType

import stratokit.protocols
from stratokit.protocols.base import Protocol


@functools.cache
def modules() -> tuple[ModuleType, ...]:
    """All modules of this folder."""
    names = (info.name for info in pkgutil.iter_modules(stratokit.protocols.__path__))
    return tuple(importlib.import_module(f"stratokit.protocols.{name}") for name in names)


@functools.cache
def protocols() -> dict[str, Protocol]:
    """Protocols by name, in order of their names."""
    found = {}
    for module in modules():
        protocol = getattr(module, "PROTOCOL", None)
        if isinstance(protocol, Protocol):
            found[protocol.name] = protocol
    return found
