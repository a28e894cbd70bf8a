"""Who owned a socket when, and which process a pid meant then."""

import polars as pl
from helpers.survey import survey

from stratokit.engine.ingest.owners import owners, with_owner
from stratokit.engine.ingest.packets import Context, connections
from stratokit.engine.ingest.processes import spans


def asked(*rows):
    return pl.DataFrame(rows, schema={"socket_cookie": pl.UInt64, "ts": pl.Int64}, orient="row")


def test_an_owner_counts_until_the_next_and_the_first_before_itself():
    found = survey(owners=[(7, 10, 100, 101, "a"), (7, 20, 200, 200, "b")])
    located = with_owner(asked((7, 5), (7, 10), (7, 19), (7, 20), (8, 20), (None, 20)), owners(found))
    assert located["tid"].to_list() == [101, 101, 101, 200, None, None]
    assert located["owner_ts"].to_list() == [10, 10, 10, 20, None, None]


def test_who_waits_from_before_the_recording_to_its_end_owns():
    call = {"socket_cookie": 7, "start_ns": 0, "pid": 100, "tid": 101, "comm": "a"}
    found = survey({"open_calls": [call, call | {"socket_cookie": 0, "pid": 300}]})
    assert with_owner(asked((7, 5)), owners(found))["pid"].to_list() == [100]


def test_a_pid_used_again_does_not_take_over_old_sockets():
    """The owner ended, its number went to another process, and the connection still says goodbye."""
    process = {
        "ts": [0, 50],
        "event": ["fork", "fork"],
        "pid": pl.Series([100, 100], dtype=pl.UInt32),
        "process_start": [1, 50],
        "cgroup": ["/old", "/new"],
    }
    nobody = {
        "cgroup": pl.String,
        "container_id": pl.String,
        "pod": pl.String,
        "namespace": pl.String,
    }
    evidence = owners(survey(owners=[(7, 10, 100, 100, "a"), (8, 60, 100, 100, "b")]))
    none = connections(
        pl.DataFrame(
            schema=dict.fromkeys(("old_state", "new_state", "src_ip", "dst_ip"), pl.String)
            | {"ts": pl.Int64, "socket_cookie": pl.UInt64, "src_port": pl.UInt16, "dst_port": pl.UInt16}
        ),
        pl.DataFrame(schema={"socket_cookie": pl.UInt64}),
    )
    context = Context(evidence, spans(pl.DataFrame(process)), pl.DataFrame(schema=nobody), none)
    located = context.locate(asked((7, 70), (8, 70), (7, 20)))
    assert located["cgroup"].to_list() == ["/old", "/new", "/old"]
    assert located["process_start"].dt.epoch("ns").to_list() == [1, 50, 1]
