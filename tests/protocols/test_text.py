"""Text columns: any bytes become valid text, and none get lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols.text import text_column


def decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.binary(max_size=12), st.text(max_size=6).map(str.encode)), max_size=8)
)
def test_utf8_stays_and_all_else_is_latin_1(texts: list[bytes | None]) -> None:
    data = np.frombuffer(b"".join(text or b"" for text in texts), np.uint8)
    sizes = np.array([-1 if text is None else len(text) for text in texts], np.int64)
    starts = np.cumsum(np.maximum(sizes, 0)) - np.maximum(sizes, 0)
    column = text_column(data, starts, sizes)
    assert column.to_list() == [None if text is None else decoded(text) for text in texts]


def test_edges_of_utf8() -> None:
    for text in (
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\xf0\x9f\x98\x80",
        b"\xef\xbf\xbf",
    ):
        column = text_column(np.frombuffer(text, np.uint8), np.array([0]), np.array([len(text)]))
        assert column.to_list() == [decoded(text)]
