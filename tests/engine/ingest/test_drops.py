"""Names of reasons and stacks of dropped packets."""

import numpy as np
import polars as pl
from helpers.survey import survey

from stratokit.engine.ingest.drops import Drops


def drops(reasons=None, **tables):
    found = survey(tables)
    found.opening["drop_reasons"] = reasons or {}
    return Drops(found, None)


def test_a_reason_has_the_name_that_the_kernel_gave_it():
    names = drops({"3": "NO_SOCKET", "196608": "OPENVSWITCH", "196610": "OVS_DROP_LAST_ACTION"})
    found = names._reason(np.array([3, 196610, 196613, 99, 131073, 3], np.uint32))
    assert found.to_list() == [
        *("NO_SOCKET", "OVS_DROP_LAST_ACTION", "OPENVSWITCH_5", "REASON_99", "REASON_131073", "NO_SOCKET")
    ]


def test_a_kernel_without_reasons_gives_none():
    assert drops()._reason(np.zeros(2, np.uint32)).to_list() == [None, None]
    assert drops()._reason(np.zeros(2, np.uint32)).dtype == pl.String


def test_a_stack_begins_outside_and_ends_where_it_was_dropped():
    symbols = [
        [10, "bpf_trace_run4+0x1"],
        [11, "__traceiter_kfree_skb+0x2"],
        [12, "udp_rcv+0x3"],
        [13, "main+0x4"],
    ]
    made = drops(symbols=symbols, stacks=[[5, [10, 11, 12, 99, 13]], [6, []], [7, [99]]])
    assert made._stacks == {5: "main;?;udp_rcv"}
