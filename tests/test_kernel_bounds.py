"""No kernel reads or writes outside its arrays: hostile input once more, with numba's bounds checks on.

Kernels normally lack these checks, so a process of its own compiles every kernel with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOMS = [str(HERE / room) for room in ("dissect", "engine", "protocols")]


@pytest.mark.slow
def test_kernels_stay_inside_their_arrays(tmp_path: Path) -> None:
    environment = os.environ | {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(tmp_path),  # checked kernels shall not be kept for others
        "PYTHONPATH": os.pathsep.join([*ROOMS, str(HERE), str(HERE.parent), *sys.path]),
    }
    subprocess.run([sys.executable, __file__], env=environment, check=True, timeout=900)


def everything() -> None:
    import test_hostile
    import test_http2_hostile
    import test_protocols_hostile
    import test_scap_hostile

    for seed in range(1000, 1120):
        test_protocols_hostile.check(seed)
    for seed in range(1000, 1600):
        test_http2_hostile.check(seed)
    test_hostile.test_random_bytes()
    test_hostile.test_damaged_samples()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1000, 1004):
            test_scap_hostile.test_bytes_changed_at_random(Path(folder), seed)


if __name__ == "__main__":
    everything()
