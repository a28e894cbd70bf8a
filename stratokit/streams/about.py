"""What ICMP errors are about: the packet that each of them shows, and the conversation of that packet."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclasses.dataclass(slots=True)
class About:
    """Packets that ICMP errors are about: `rows` in ascending order are those of the errors, the others
    arrays describe the packet each of them shows. Its conversation is the one that its addresses and ports
    have at that time in whatever VLAN; `flow_id` is -1 where there is none.
    """

    rows: NDArray[np.int64]
    src_ip16: NDArray[np.uint8]
    dst_ip16: NDArray[np.uint8]
    src_port: NDArray[np.uint16]
    dst_port: NDArray[np.uint16]
    ip_proto: NDArray[np.uint8]
    icmp_type: NDArray[np.uint8]
    icmp_id: NDArray[np.uint16]
    flow_id: NDArray[np.int64] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.flow_id = np.full(self.rows.size, -1, np.int64)

    @classmethod
    def none(cls) -> About:
        addresses, ports, bytes_ = np.empty((0, 16), np.uint8), np.empty(0, np.uint16), np.empty(0, np.uint8)
        return cls(np.empty(0, np.int64), addresses, addresses, ports, ports, bytes_, bytes_, ports)

    def arrays(self) -> Any:
        """For the kernel."""
        embedded = (
            np.ascontiguousarray(self.src_ip16).view(np.uint64),
            np.ascontiguousarray(self.dst_ip16).view(np.uint64),
            *(self.src_port, self.dst_port, self.ip_proto, self.icmp_type, self.icmp_id),
        )
        return self.rows, embedded, self.flow_id
