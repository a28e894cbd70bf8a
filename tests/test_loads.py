"""Numbers that kernels load at once are those that their bytes make."""

from __future__ import annotations

import numpy as np

from stratokit.kernels import kernel
from stratokit.loads import load16, load32, load64


@kernel
def loaded(data, at):
    return load16(data, at), load32(data, at), load64(data, at)


def test_at_every_place_of_an_array():
    data = np.random.default_rng(1).integers(0, 256, 64, np.uint8)
    whole = data.tobytes()
    for array in (data, data[3:], np.frombuffer(whole, np.uint8)):
        bytes_ = array.tobytes()
        for at in range(len(bytes_) - 8):
            expected = [int.from_bytes(bytes_[at : at + n], "little", signed=n == 8) for n in (2, 4, 8)]
            assert list(loaded(array, at)) == expected
