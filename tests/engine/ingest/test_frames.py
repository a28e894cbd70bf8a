"""Frames at devices become rows: link layer, interface, conversation, owner."""

import struct

import numpy as np
import polars as pl
from helpers.survey import survey

from stratokit.engine.ingest import endpoints, owners, packets, processes
from stratokit.engine.ingest.frames import Frames
from stratokit.formats.events import Batch
from stratokit.schema import derive, load

ETHERNET, TUNNEL, LOOP = 1, 778, 772
A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
NEW, OLD = 11, 22  # cookies of namespaces
INTERFACES = [
    {"ifindex": 2, "interface": "eth0", "netns_cookie": NEW, "device_type": ETHERNET},
    {"ifindex": 2, "interface": "other", "netns_cookie": OLD, "device_type": ETHERNET},
    {"ifindex": 3, "interface": "gre1", "netns_cookie": NEW, "device_type": TUNNEL},
]


def udp(source, target, ports, payload=b"hello"):
    body = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0, source, target) + body


def framed(packet):
    return bytes(12) + b"\x08\x00" + packet


def batch(name, *records):
    """(fields, data) of each record."""
    dtype = derive.numpy_dtype(load.events()[name])
    fixed = np.zeros(len(records), dtype)
    for i, (fields, _) in enumerate(records):
        for key, value in fields.items():
            fixed[key][i] = value
    lengths = np.array([len(data) for _, data in records], np.int64)
    data = np.frombuffer(b"".join(data for _, data in records) or b"\0", np.uint8)
    return Batch(data, fixed, {"data": (np.cumsum(lengths) - lengths, lengths)})


def frame(ts, data, netns=NEW, ifindex=2, out=False, kind=ETHERNET, offset=14):
    sizes = {"orig_len": len(data), "cap_len": len(data), "network_offset": offset}
    where = {"netns_cookie": netns, "ifindex": ifindex, "device_type": kind, "direction": 2 if out else 1}
    return sizes | where | {"ts_ns": ts}, data


def mapped(address):
    return np.frombuffer(bytes(10) + b"\xff\xff" + address, np.uint8)


def rows(*records, ends=()):
    found = survey({"interfaces": INTERFACES})
    found.owners = pl.DataFrame([(7, 0, 70, 71, "curl")], schema=owners.OWNER_SCHEMA, orient="row")
    if ends:
        found.ends = pl.DataFrame(endpoints.evidence(batch("endpoint", *((e, b"") for e in ends))))
    spans = processes.spans(processes.processes(found, {}))
    boxes = pl.DataFrame(schema=dict.fromkeys(("cgroup", "container_id", "pod", "namespace"), pl.String))
    none = pl.DataFrame(schema={"listener": pl.UInt64, "child": pl.UInt64})
    context = packets.Context(owners.owners(found), spans, boxes, none)
    return pl.from_arrow(Frames(found, context).rows(batch("frame", *records)))


def test_a_frame_belongs_to_the_socket_with_its_addresses_in_its_namespace():
    end = {"socket_cookie": 7, "netns_cookie": NEW, "protocol": 17, "local_port": 5000, "remote_port": 53}
    end |= {"local_ip": mapped(A), "remote_ip": mapped(B), "ts_ns": 150}
    asked, answer = framed(udp(A, B, (5000, 53))), framed(udp(B, A, (53, 5000)))
    found = rows(
        frame(100, asked, out=True),
        frame(200, answer),
        frame(300, asked, netns=OLD, out=True),
        frame(400, answer, out=True),  # forwarded: the other end's socket is not here
        ends=[end],
    )
    assert found["pid"].to_list() == [70, 70, None, None]
    assert found["socket_cookie"].to_list() == [7, 7, None, None]
    assert found["interface"].to_list() == ["eth0", "eth0", "other", "eth0"]
    assert found["direction"].to_list() == ["out", "in", "out", "out"]
    assert found["data"].to_list() == [asked, answer, asked, answer]


def test_what_several_devices_see_is_one_conversation_at_one_of_them():
    asked, answer = framed(udp(A, B, (5000, 53))), framed(udp(B, A, (53, 5000)))
    found = rows(
        frame(1, asked, netns=OLD),
        frame(2, asked, netns=NEW, out=True),
        frame(3, answer, netns=NEW),
        frame(4, answer, netns=OLD, out=True),
    )
    assert found["flow_id"].to_list() == [0, None, None, 0]
    assert found["frame"].to_list() == [1, 2, 3, 4]


def test_a_link_layer_without_a_number_is_left_out():
    packet = udp(A, B, (5000, 53))
    found = rows(frame(1, b"outer" * 8 + packet, ifindex=3, kind=TUNNEL, offset=40))
    row = found.row(0, named=True)
    assert (row["link_type"], row["data"], row["orig_len"], row["cap_len"]) == (
        101,
        packet,
        len(packet),
        len(packet),
    )
    assert (row["src_port"], row["interface"]) == (5000, "gre1")


def test_loopback_counts_a_frame_once():
    one, two = framed(udp(A, A, (5000, 53))), framed(udp(A, A, (5000, 53), b"other"))
    found = rows(
        frame(1, one, kind=LOOP, out=True),
        frame(2, one, kind=LOOP),
        frame(3, two, kind=LOOP, out=True),
        frame(4, one),  # elsewhere the same bytes are another frame
        frame(5, two, kind=LOOP),
    )
    assert found["frame"].to_list() == [1, 1, 2, 3, 2]


def test_frames_of_any_length_and_offset_do_no_harm():
    random = np.random.default_rng(3)
    hostile = [
        frame(
            i, random.bytes(int(random.integers(0, 60))), kind=int(random.choice([1, 772, 778])), offset=65535
        )
        for i in range(500)
    ]
    assert rows(*hostile).height == 500
