"""Which parameters of events a query needs: the others are not read."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from stratokit.formats.scap.params import EFFECT, PLACE, Tables, tables, with_places

# Columns that are made of parameters by other names.
_OF_COLUMN = {"errno": ("ret",), "syscall": ("call", "native")}
# What no descriptor, thread or directory depends on.
_DETAILS = ("data", "path2", "arg4", "arg5", "env", "size", "source", "peer", "vtid", "vpid")
_FOLLOWS_NOTHING = (EFFECT[""], EFFECT["generic"])


def narrowed(columns: Collection[str] | None, fd_places: np.ndarray) -> Tables:
    """Tables in which only those parameters have a place that state or one of these columns needs.

    None stands for all columns. `fd_places` has by type of the enter event the place of the descriptor.
    """
    whole = tables()
    if columns is None:
        return whole
    wanted = {place for column in columns for place in _OF_COLUMN.get(column, (column,)) if place in PLACE}
    places = whole.place.copy()
    types = np.arange(len(places))
    plain = (np.isin(whole.effect, _FOLLOWS_NOTHING) & ~whole.single)[:, None]
    of_fd = fd_places[types & ~1][:, None]
    kept = np.isin(places, [PLACE[name] for name in {*wanted, "ret"}]) | (places == of_fd)
    details = np.isin(places, [PLACE[name] for name in _DETAILS if name not in wanted])
    places[np.where(plain, ~kept, details)] = 0
    return with_places(whole, places)
