"""All protocols there are: every module of this folder that has a `PROTOCOL`, and a `PARSER` for streams."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType

import stratokit.protocols
from stratokit.protocols.base import Protocol


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(info.name for info in pkgutil.iter_modules(stratokit.protocols.__path__))


@functools.cache
def modules() -> tuple[ModuleType, ...]:
    """All modules of this folder."""
    return tuple(importlib.import_module(f"stratokit.protocols.{name}") for name in _names())


def module(name: str) -> ModuleType | None:
    """The module of that name, without loading any other."""
    return importlib.import_module(f"stratokit.protocols.{name}") if name in _names() else None


def protocol(name: str) -> Protocol | None:
    """The protocol that stands in the module of its name, without loading any other; None elsewhere."""
    found = getattr(module(name), "PROTOCOL", None)
    return found if isinstance(found, Protocol) and found.name == name else None


@functools.cache
def protocols() -> dict[str, Protocol]:
    """Protocols by name, in order of their names."""
    found = {}
    for module in modules():
        protocol = getattr(module, "PROTOCOL", None)
        if isinstance(protocol, Protocol):
            found[protocol.name] = protocol
    return found
