"""`stratokit fields`."""

from __future__ import annotations

import json


def test_fields_are_found_by_name_and_meaning(stratokit):
    done = stratokit("fields", "tcp.flags", "--json")
    assert done.code == 0
    found = {field["name"]: field for field in json.loads(done.out)}
    assert found["tcp.flags.syn"] == {
        "name": "tcp.flags.syn",
        "type": "bool",
        "meaning": "Synchronise sequence numbers.",
        "tables": "packets",
        "columns": "datagram, fragment_id, ip_proto, stop_reason, tcp_flags",
    }
    assert "evt.latency" in stratokit("fields", "From entry to exit").out


def test_every_field_has_a_meaning_and_a_table(stratokit):
    fields = json.loads(stratokit("fields", "--json").out)
    assert len(fields) > 80
    for field in fields:
        assert field["meaning"], field
        assert field["tables"], field


def test_no_such_field(stratokit):
    done = stratokit("fields", "qqqq")
    assert (done.code, done.out) == (1, "")
    assert "no field has 'qqqq'" in done.err
