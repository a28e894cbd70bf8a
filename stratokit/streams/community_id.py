"""Community ID v1: one short text for a conversation, the same in Zeek, Suricata, Arkime and Wireshark.

Specification: https://github.com/corelight/community-id-spec. "1:" and the base64 of the SHA-1 of a seed (two
zero bytes), the lesser and the greater address, the protocol, a zero byte, and the ports in the same order.
"""

from __future__ import annotations

import base64
import hashlib
import socket
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.streams.flows import ICMP, ICMPV6, SCTP, TCP, UDP

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Types that another type answers: the answer's number stands where the other port would. A type without an
# answer has its code there, and its direction stays as it is.
_ICMP_ANSWERS = {8: 0, 0: 8, 9: 10, 10: 9, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}
_ICMPV6_PAIRS = ((128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145))
_ICMPV6_ANSWERS = {a: b for x, y in _ICMPV6_PAIRS for a, b in ((x, y), (y, x))}


def _answers(table: dict[int, int]) -> NDArray[np.int64]:
    array = np.full(256, -1, np.int64)
    array[list(table)] = list(table.values())
    return array


_ANSWER_V4, _ANSWER_V6 = _answers(_ICMP_ANSWERS), _answers(_ICMPV6_ANSWERS)


def _packed(text: str | None) -> bytes:
    """The 4 or 16 bytes of an address; none where the text is no address."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in (text or "") else socket.AF_INET, text or "")
    except OSError:
        return b""


def _community_id(message: bytes) -> str:
    digest = hashlib.sha1(b"\0\0" + message, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode()


def community_ids(flows: pl.DataFrame) -> pl.Series:
    """Text for each row of src_ip, dst_ip, src_port, dst_port, ip_proto, icmp_type, icmp_code.

    One hash a conversation, a few microseconds each: select the column only where it is wanted.
    Null where an address is missing.

    >>> row = {"src_ip": "128.232.110.120", "dst_ip": "66.35.250.204", "src_port": 34855, "dst_port": 80}
    >>> community_ids(pl.DataFrame([row | {"ip_proto": 6, "icmp_type": None, "icmp_code": None}]))[0]
    '1:LQU9qZlK+B5F3KDmev6m5PMibrg='
    """
    proto, sport, dport, kind, code = (
        flows[name].fill_null(0).to_numpy().astype(np.int64)
        for name in ("ip_proto", "src_port", "dst_port", "icmp_type", "icmp_code")
    )
    icmp = (proto == ICMP) | (proto == ICMPV6)
    answer = np.where(proto == ICMP, _ANSWER_V4[kind], _ANSWER_V6[kind])
    one_way = (icmp & (answer < 0)).tolist()
    ported = (icmp | np.isin(proto, (TCP, UDP, SCTP))).tolist()
    sports = np.where(icmp, kind, sport).tolist()
    dports = np.where(icmp, np.where(answer < 0, code, answer), dport).tolist()
    src, dst = flows["src_ip"].cast(pl.String).to_list(), flows["dst_ip"].cast(pl.String).to_list()
    packed = {text: _packed(text) for text in {*src, *dst}}
    ids: list[str | None] = []
    for i, p in enumerate(proto.tolist()):
        ends = [(packed[src[i]], sports[i]), (packed[dst[i]], dports[i])]
        if not ends[0][0] or len(ends[0][0]) != len(ends[1][0]):
            ids.append(None)
            continue
        if not one_way[i]:
            ends.sort()
        message = ends[0][0] + ends[1][0] + bytes((p, 0))
        if ported[i]:
            message += ends[0][1].to_bytes(2, "big") + ends[1][1].to_bytes(2, "big")
        ids.append(_community_id(message))
    return pl.Series("community_id", ids, pl.String)
