"""What readers of packet files give and writers take: windows of frames, and descriptions of interfaces."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa

ETHERNET = 1
# Raw IP: LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6.
RAW_IP = (101, 228, 229)


@dataclasses.dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a capture.

    `options` are those of the pcapng block it came from, code and bytes as they stood there, in order.
    """

    name: str = ""
    ifindex: int = 0
    link_type: int = ETHERNET
    netns: int | None = None
    snaplen: int = 0
    description: str = ""
    mac: str = ""
    addresses: tuple[str, ...] = ()
    options: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Interface:
        """From a row of kind `interface`."""
        return cls(
            name=row["interface"] or "",
            ifindex=row["ifindex"] or 0,
            link_type=ETHERNET if row["link_type"] is None else row["link_type"],
            netns=row.get("netns"),
            mac=row["mac"] or "",
            addresses=tuple(row["addresses"] or ()),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """Where reading a file had to end early: everything before `offset` was delivered."""

    counter: str
    offset: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class FrameBatch:
    """Frames within one window of a file; all arrays but `data` have one element a frame.

    `data` may be kept as long as it is needed. `interfaces` are indexes of the reader's `interfaces`. The
    rest is of pcapng: `blocks` is the type of the block that a frame stood in; `options_at` and `options_end`
    bound its options in `data`, both zero without any; `big`: they are in big-endian order; `drops`: packets
    lost before it, as an obsolete packet block says, -1 where it does not; `processes` (n, 2): from where to
    where those of its file stand among the reader's, None where all frames are of one file. `stored` are
    columns of kind packet that are known already, as of captures that were made of packet files.
    """

    data: np.ndarray
    offsets: np.ndarray
    cap_lens: np.ndarray
    orig_lens: np.ndarray
    link_types: np.ndarray
    ts_ns: np.ndarray
    interfaces: np.ndarray
    options_at: np.ndarray
    options_end: np.ndarray
    big: np.ndarray
    blocks: np.ndarray
    drops: np.ndarray
    processes: np.ndarray | None = None
    stored: pa.Table | None = None
