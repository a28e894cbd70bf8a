"""Views of bytes: what Arrow cannot do with them itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from stratokit.formats import views

VALUES = [b"", b"short", None, b"twelve bytes", b"thirteen byte", None, bytes(range(256)), b"x"]


def large(values: list[bytes | None]) -> pa.Array:
    return pa.array(values, pa.large_binary())


@pytest.mark.parametrize("start", range(4))
def test_views_show_the_same_bytes(start: int) -> None:
    column = pa.chunked_array([large(VALUES).slice(start), large([]), large([b"more" * 9])])
    found = views.as_views(column)
    assert found.type == pa.binary_view()
    assert found.to_pylist() == [*VALUES[start:], b"more" * 9]
    found.validate(full=True)


def test_bytes_beyond_the_reach_of_a_view_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "BUFFER_MAX", 256)
    values = [bytes([number]) * (number % 200) for number in range(250)]
    found = views.as_views(pa.chunked_array([large(values)]))
    assert found.to_pylist() == values
    assert found.num_chunks > 50
    with pytest.raises(ValueError, match="too large"):
        views.as_views(pa.chunked_array([large([bytes(257)])]))


def test_rows_are_taken_and_measured() -> None:
    column = views.as_views(pa.chunked_array([large(VALUES).slice(1), large(VALUES)]))
    order = np.random.default_rng(3).permutation(len(column))
    taken = views.take_views(column, order)
    taken.validate(full=True)
    everything = VALUES[1:] + VALUES
    assert taken.to_pylist() == [everything[row] for row in order]
    sliced = taken.slice(2)
    assert views.view_lengths(sliced).tolist() == [len(v or b"") for v in sliced.to_pylist()]
    assert views.view_lengths(pa.chunked_array([], pa.binary_view())).tolist() == []


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize(
    "texts", [["a", "longer than a view", "", "b"], ["a", None, "", "d" * 40], [], [None]]
)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_text_by_number_becomes_text(kind: pa.DataType, texts: list[str | None], cut: int) -> None:
    values = pa.array(["before", *texts], kind).slice(1)  # as a piece of longer ones
    numbers = [k % len(texts) if texts and k % 3 else None for k in range(10)]
    column = pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), values).slice(cut, 6)
    found = views.spread(column)
    found.validate(full=True)
    assert found.to_pylist() == column.to_pylist()
