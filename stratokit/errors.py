"""Errors that a user may see: one sentence that says what is wrong and what to do next."""

from __future__ import annotations


class StratokitError(Exception):
    """Something the user can act on. The message is the whole text that the command line prints."""


class SchemaError(StratokitError):
    """A file in schemas/ breaks the rules that schemas/README.md states."""


class FormatError(StratokitError):
    """A file is not of the format it was taken for, or is damaged from its first byte on."""


class RecordError(StratokitError):
    """Recording cannot start or go on here."""


class UsageError(StratokitError):
    """An option or an argument has an unknown or contradictory value (exit code 2)."""
