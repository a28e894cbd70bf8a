"""One checksum, whoever computes it."""

import mmap
import os
import zlib

import pytest

from stratokit.formats import crc32


@pytest.mark.parametrize("library", [True, False])
def test_it_is_that_of_zlib(library, monkeypatch):
    if library and crc32._functions() is None:
        pytest.skip("libdeflate is not installed")
    if not library:
        monkeypatch.setattr(crc32, "_functions", lambda: None)
    data = os.urandom(3 * crc32.LEAST_BYTES + 5)
    with mmap.mmap(-1, len(data)) as made:
        made[:] = data
        with memoryview(made) as view, view.toreadonly() as fixed:
            for size in (0, 1, crc32.LEAST_BYTES - 1, crc32.LEAST_BYTES, len(data)):
                for start in (0, 3):
                    with fixed[start:size] as piece:
                        for value in (0, 0x12345678):
                            assert crc32.crc32(piece, value) == zlib.crc32(data[start:size], value)
    assert crc32.crc32(data) == zlib.crc32(data)
    # The mapping could be closed: no address is kept.
