"""What TLS hellos say, as columns: names and lists of a ClientHello, what a ServerHello chose, JA3, JA4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel
from stratokit.protocols import tls_records as tr
from stratokit.protocols.text import text_column
from stratokit.protocols.tls_names import GROUPS, VERSIONS
from stratokit.protocols.tls_prints import fingerprints, numbers
from stratokit.protocols.tls_suites import SUITES

if TYPE_CHECKING:
    from numpy.typing import NDArray


@kernel
def _protocols(data: np.ndarray, start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(position, size) of each name in ALPN lists, and the bounds of each list's names."""
    total = 0
    for s in size:
        total += max(s, 0)
    names = np.empty((total, 2), np.int64)
    bounds = np.zeros(start.size + 1, np.int64)
    n = 0
    for i in range(start.size):
        p = start[i]
        while p < start[i] + size[i]:
            names[n, 0], names[n, 1] = p + 1, min(i64(data[p]), start[i] + size[i] - p - 1)
            p += 1 + data[p]
            n += 1
        bounds[i + 1] = n
    return names[:n], bounds


def _alpn(plain: NDArray[np.uint8], hellos: NDArray[np.int64]) -> pl.Series:
    size = hellos[:, tr.ALPN_LIST + 1]
    names, bounds = _protocols(plain, hellos[:, tr.ALPN_LIST], size)
    texts = text_column(plain, names[:, 0], names[:, 1]).to_arrow()
    lists = pl.Series(pa.LargeListArray.from_arrays(bounds, texts), dtype=pl.List(pl.String))
    return pl.select(pl.when(pl.Series(size >= 0)).then(lists)).to_series()


@kernel
def _numbers(data: np.ndarray, start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two-byte numbers of lists, and the bounds of each list's numbers."""
    total = 0
    for s in size:
        total += max(s, 0) // 2
    found = np.empty(total, np.int64)
    bounds = np.zeros(start.size + 1, np.int64)
    for i in range(start.size):
        bounds[i + 1] = bounds[i] + numbers(data, start[i], size[i], False, found[bounds[i] :])
    return found[: bounds[-1]], bounds


def _name_lists(
    plain: NDArray[np.uint8], hellos: NDArray[np.int64], column: int, names: dict[int, str]
) -> pl.Series:
    """Lists of numbers in hellos as lists of their names."""
    found, bounds = _numbers(plain, hellos[:, column], hellos[:, column + 1])
    number = pl.Series("number", found)
    texts = pl.select(name_of(pl.lit(number), names)).to_series().to_arrow()
    lists = pl.Series(pa.LargeListArray.from_arrays(bounds, texts), dtype=pl.List(pl.String))
    return pl.select(pl.when(pl.Series(hellos[:, column + 1] >= 0)).then(lists)).to_series()


def name_of(number: pl.Expr, names: dict[int, str]) -> pl.Expr:
    return number.replace_strict(names, default=pl.format("{}", number), return_dtype=pl.String)


def hello_columns(
    plain: NDArray[np.uint8], client: NDArray[np.int64], server: NDArray[np.int64], transport: str
) -> dict[str, Any]:
    """What pairs of hellos say, each -1 where it is missing."""
    asked, told = fingerprints(plain, client, transport), fingerprints(plain, server, transport)
    return {
        "sni": text_column(plain, client[:, tr.NAME], client[:, tr.NAME + 1]),
        "alpn": _alpn(plain, client),
        "alpn_chosen": _alpn(plain, server).list.first(),
        "number": server[:, tr.VERSION],
        "suite": server[:, tr.CIPHER],
        "group_number": server[:, tr.GROUP],
        "offered_versions": _offered_versions(plain, client),
        "offered_ciphers": _name_lists(plain, client, tr.CIPHERS, SUITES),
        "offered_groups": _name_lists(plain, client, tr.GROUPS, GROUPS),
        "ja3": asked["ja3"],
        "ja4": asked["ja4"],
        "ja3s": told["ja3"],
        "resumes": server[:, tr.RESUMES],
        "early": _flag(client, tr.EARLY),
        "ech": _flag(client, tr.ENCRYPTED),
    }


def _offered_versions(plain: NDArray[np.uint8], client: NDArray[np.int64]) -> pl.Series:
    """The list where there is one, else the highest (RFC 8446 section 4.2.1)."""
    legacy = pl.Series("legacy", client[:, tr.LEGACY])
    highest = pl.select(
        pl.when(legacy >= 0).then(pl.concat_list(name_of(pl.lit(legacy), VERSIONS)))
    ).to_series()
    return _name_lists(plain, client, tr.VERSIONS, VERSIONS).zip_with(
        pl.Series(client[:, tr.VERSIONS + 1] >= 0), highest
    )


def _flag(hellos: NDArray[np.int64], column: int) -> pl.Series:
    there = pl.Series(hellos[:, tr.LEGACY] >= 0)
    return pl.select(pl.when(there).then(pl.Series(hellos[:, column] == 1))).to_series()
