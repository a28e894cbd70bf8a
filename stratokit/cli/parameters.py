"""Words of the command line as they are: typer checks each with pydantic, which loads as long as numpy."""

from __future__ import annotations

import os
import typing
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A verb whose texts and paths are taken as they are; what is not so simple typer looks at."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters."""
        return _plain(super().get_params(ctx))


class Group(TyperGroup):
    """The program, as `Command`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters."""
        return _plain(super().get_params(ctx))


def _plain(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        # Not in every version of typer: others check each word.
        if getattr(parameter, "_runtime_param", parameter) is None:
            parameter._runtime_param = _Words()
    return parameters


class _Words:
    """Stands where typer looks for its own converter of a parameter, which is made when it is needed."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value that the verb is called with."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        kind, options = param.type_descriptor.annotation, param.type_descriptor.parameter_info
        words = value if several else [value]
        if several:
            (kind,) = typing.get_args(kind) or (None,)
        if isinstance(words, (list, tuple)) and all(_is_plain(word, kind, options) for word in words):
            made = [kind(word) for word in words]
            return made if several else made[0]
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _is_plain(word: Any, kind: Any, options: Any) -> bool:
    if options.parser is not None:
        return False
    if kind in (str, bool):
        return type(word) is kind
    usual = options.file_okay and options.dir_okay and options.path_type is None
    if kind is not Path or not usual or options.exists or options.resolve_path or options.writable:
        return False
    return isinstance(word, str | Path) and (not os.path.exists(word) or os.access(word, os.R_OK))
