"""stratokit: record what a Linux host does with eBPF during an incident; analyse the capture afterwards.

    import stratokit as sk

    capture = sk.open("capture.parquet")
    capture.table("http")  # a polars LazyFrame
    capture.where("http.response.code >= 500").report()

Names load on first use, so that the recorder and `--help` stay light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratokit.errors import StratokitError
    from stratokit.notebook import Capture, CaptureReport, open  # noqa: A004

__version__ = "0.1.0"
__all__ = ["Capture", "CaptureReport", "StratokitError", "__version__", "open"]

_PLACES = {
    "Capture": "stratokit.notebook",
    "CaptureReport": "stratokit.notebook",
    "StratokitError": "stratokit.errors",
    "open": "stratokit.notebook",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'stratokit' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
