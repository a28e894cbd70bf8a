"""Every protocol has the same parts, and declares what it gives."""

from __future__ import annotations

import pytest
from helpers.traffic import Packets

from stratokit.protocols.base import Protocol
from stratokit.protocols.registry import protocols
from stratokit.streams.source import frame_schema


def test_protocols_are_found_by_being_there() -> None:
    assert {"dns", "http"} <= protocols().keys()
    assert all(protocol.name == protocol.table.name for protocol in protocols().values())


@pytest.mark.parametrize("protocol", protocols().values(), ids=lambda protocol: protocol.name)
def test_a_protocol_declares_its_table(protocol: Protocol) -> None:
    assert protocol.doc
    assert protocol.recognised
    columns = {column.name for column in protocol.table.columns}
    assert all(column.doc for column in protocol.table.columns)
    for field in protocol.table.fields:
        assert set(field.columns) <= columns, field.name
        assert field.doc
    names = [field.name for field in protocol.table.fields]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("protocol", protocols().values(), ids=lambda protocol: protocol.name)
def test_no_packets_give_no_rows_of_the_declared_form(protocol: Protocol) -> None:
    rows = protocol.build(Packets()).collect()
    assert rows.height == 0
    assert rows.schema == frame_schema(protocol.table)
    assert protocol.build(Packets()).collect_schema() == rows.schema
