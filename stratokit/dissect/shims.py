"""What may stand between the link layer and the network layer: 802.1Q and 802.1ad tags, LLC, MPLS, PPPoE,
PPP, tags (`dissect.tags`), another Ethernet header.
"""

from __future__ import annotations

import numpy as np

from stratokit.dissect import layers
from stratokit.dissect.layers import HAS_VLAN, HAS_VLAN_INNER, STOP_LENGTH, Row, be16, lacking
from stratokit.dissect.link import (
    LENGTH_MAX,
    TYPE_BRIDGED,
    TYPE_MPLS,
    TYPE_MPLS_UPSTREAM,
    TYPE_PPP,
    TYPE_PPPOE,
    VLAN_TYPES,
    ethernet,
    llc,
)
from stratokit.dissect.mpls import mpls
from stratokit.dissect.ppp import ppp, pppoe
from stratokit.dissect.tags import TAG_TYPES, tag
from stratokit.kernels import routine


@routine
def vlan(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> tuple[int, int]:
    """A tag: priority 3 bits, drop eligible 1, VLAN id 12, EtherType 16."""
    stop = lacking(4, at, cap, wire)
    if stop:
        return stop, at
    number = be16(data, at, cap) & 0x0FFF
    if not row.layers & HAS_VLAN:
        row.layers |= HAS_VLAN
        row.vlan = number
    elif not row.layers & HAS_VLAN_INNER:
        row.layers |= HAS_VLAN_INNER
        row.vlan_inner = number
    return be16(data, at + 2, cap), at + 4


@routine
def shims(
    data: np.ndarray, at: int, cap: int, wire: int, ether_type: int, layer: int, row: Row
) -> tuple[int, int, int, int, int]:
    """Pass any number of these. Each takes bytes of the frame, so the walk ends.

    Returns the layer that named the next one, that one's EtherType or a stop reason, `at`, `cap`, `wire`,
    which a length may have shortened.
    """
    while True:
        if ether_type in VLAN_TYPES:
            layer = layers.VLAN
            ether_type, at = vlan(data, at, cap, wire, row)
        elif 0 <= ether_type <= LENGTH_MAX:
            if at + ether_type > wire:
                return layer, STOP_LENGTH, at, cap, wire
            wire = at + ether_type  # what follows is padding
            cap = min(cap, wire)
            ether_type, at = llc(data, at, cap, wire)
            if 0 <= ether_type <= LENGTH_MAX:
                return layer, layers.STOP_UNKNOWN, at, cap, wire
        elif ether_type in (TYPE_MPLS, TYPE_MPLS_UPSTREAM):
            layer = layers.MPLS
            ether_type, at = mpls(data, at, cap, wire, row)
        elif ether_type == TYPE_PPPOE:
            layer = layers.PPPOE
            stop, at, wire = pppoe(data, at, cap, wire, row)
            cap = min(cap, wire)
            ether_type = stop or TYPE_PPP
        elif ether_type == TYPE_PPP:
            layer = layers.PPP
            ether_type, at = ppp(data, at, cap, wire)
        elif ether_type == TYPE_BRIDGED:
            layer = layers.LINK
            ether_type, at = ethernet(data, at, cap, wire)
        elif ether_type in TAG_TYPES:
            ether_type, at, wire = tag(data, at, cap, wire, ether_type)
            cap = min(cap, wire)
        else:
            return layer, ether_type, at, cap, wire
