"""Which tunnel a packet carries, by IP protocol or UDP port, and what lies in it."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.geneve import PORT as GENEVE_PORT
from stratokit.dissect.geneve import geneve
from stratokit.dissect.gre import PORT as GRE_PORT
from stratokit.dissect.gre import gre
from stratokit.dissect.gtpu import PORT as GTPU_PORT
from stratokit.dissect.gtpu import gtpu
from stratokit.dissect.l2tp import PORT as L2TP_PORT
from stratokit.dissect.l2tp import l2tp
from stratokit.dissect.layers import (
    GENEVE,
    GRE,
    GTPU,
    HAS_TUNNEL,
    HAS_TUNNEL_ID,
    IPV4,
    IPV6,
    IS_FRAGMENT,
    L2TP,
    MPLS,
    STOP_UNKNOWN,
    T_4IN6,
    T_6IN4,
    T_6IN6,
    T_ETHERIP,
    T_ETHERNET,
    T_IPIP,
    T_MPLS_IP,
    T_MPLS_UDP,
    VXLAN,
    Row,
    be16,
    lacking,
)
from stratokit.dissect.link import TYPE_BRIDGED, TYPE_IPV4, TYPE_IPV6, TYPE_MPLS
from stratokit.dissect.mpls import PORT as MPLS_PORT
from stratokit.dissect.mpls import fits, mpls
from stratokit.dissect.vxlan import GPE_PORT as VXLAN_GPE_PORT
from stratokit.dissect.vxlan import PORTS as VXLAN_PORTS
from stratokit.dissect.vxlan import gpe, vxlan
from stratokit.kernels import routine

PROTO_IPV4, PROTO_IPV6, PROTO_GRE = 4, 41, 47  # RFC 2003, RFC 4213 and RFC 2473, RFC 2784
PROTO_ETHERIP, PROTO_MPLS, PROTO_ETHERNET = 97, 137, 143  # RFC 3378, RFC 4023, RFC 8986
PROTOCOLS = (PROTO_IPV4, PROTO_IPV6, PROTO_GRE, PROTO_ETHERIP, PROTO_MPLS, PROTO_ETHERNET)


@routine
def of_ip(data: np.ndarray, at: int, cap: int, wire: int, proto: int, row: Row) -> tuple[int, int, int]:
    """The layer, the EtherType of what it carries or the stop reason, and where that begins."""
    four = row.ip_version == 4
    row.layers = row.layers & ~HAS_TUNNEL_ID | HAS_TUNNEL
    if proto == PROTO_IPV4:
        row.tunnel = T_IPIP if four else T_4IN6
        return IPV4 if four else IPV6, TYPE_IPV4, at
    if proto == PROTO_IPV6:
        row.tunnel = T_6IN4 if four else T_6IN6
        return IPV4 if four else IPV6, TYPE_IPV6, at
    if proto == PROTO_GRE:
        kind, at = gre(data, at, cap, wire, row)
        return GRE, kind, at
    layer = IPV4 if four else IPV6
    if proto == PROTO_MPLS:
        row.tunnel = T_MPLS_IP
        return layer, TYPE_MPLS, at
    if proto == PROTO_ETHERNET:
        row.tunnel = T_ETHERNET
        return layer, TYPE_BRIDGED, at
    row.tunnel = T_ETHERIP
    stop = lacking(2, at, cap, wire)
    if not stop and be16(data, at, cap) >> 12 != 3:  # version 4 bits, reserved 12
        stop = STOP_UNKNOWN
    return layer, stop or TYPE_BRIDGED, at + 2


@routine
def of_udp(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> tuple[int, int, int]:
    """As `of_ip`, for the payload of UDP; the EtherType is 0 for anything but a tunnel."""
    port = row.dst_port
    kept = row.layers
    if kept & IS_FRAGMENT:  # its packet will be put together
        return 0, 0, at
    row.layers = kept & ~HAS_TUNNEL_ID | HAS_TUNNEL
    layer, kind = 0, 0
    if port in VXLAN_PORTS:
        layer = VXLAN
        kind, at = vxlan(data, at, cap, row)
    elif VXLAN_GPE_PORT in (port, row.src_port):
        layer = VXLAN
        kind, at = gpe(data, at, cap, row)
    elif GENEVE_PORT in (port, row.src_port):
        layer = GENEVE
        kind, at = geneve(data, at, cap, wire, row)
    elif port == GRE_PORT:
        layer = GRE
        kind, at = gre(data, at, cap, wire, row)
    elif GTPU_PORT in (port, row.src_port):
        layer = GTPU
        kind, at = gtpu(data, at, cap, wire, row)
    elif L2TP_PORT in (port, row.src_port):
        layer = L2TP
        kind, at = l2tp(data, at, cap, wire, row)
    elif port == MPLS_PORT:
        layer = MPLS
        kind, at = mpls(data, at, cap, wire, row)
        if fits(data, at, cap, wire, kind):
            row.tunnel = T_MPLS_UDP
        else:  # the port is anyone's
            kind = 0
    if kind == 0:
        row.layers = kept
    return layer, kind, at
