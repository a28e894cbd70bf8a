"""An interface index names an interface within its network namespace only."""

import polars as pl
from helpers.survey import survey

from stratokit.engine.ingest.interfaces import Interfaces, rows

HERE = (
    {"ifindex": 1, "interface": "lo", "netns_cookie": 10},
    {
        "ifindex": 2,
        "interface": "eth0",
        "netns_cookie": 10,
    },
)
THERE = (
    {"ifindex": 1, "interface": "lo", "netns_cookie": 20},
    {
        "ifindex": 2,
        "interface": "veth7",
        "netns_cookie": 20,
    },
)


def names(found, *wanted):
    cookies, indexes = zip(*wanted, strict=True)
    return Interfaces(found).places(pl.Series(cookies, dtype=pl.UInt64), indexes)[0].to_list()


def networks(found, *wanted):
    cookies, indexes = zip(*wanted, strict=True)
    return Interfaces(found).places(pl.Series(cookies, dtype=pl.UInt64), indexes)[1].to_list()


def test_one_namespace_needs_no_socket():
    found = survey({"interfaces": list(HERE)})
    assert names(found, (None, 1), (5, 2), (5, 3)) == ["lo", "eth0", None]
    assert networks(found, (None, 1), (5, 2)) == [10, 10]


def test_the_socket_tells_the_namespace():
    older = [{"socket_cookie": 7, "netns_cookie": 20}]
    found = survey(
        {"interfaces": [*HERE, *THERE], "sockets": older}, homes=[(5, 0, 10), (6, 0, 20), (8, 0, 30)]
    )
    assert names(found, (5, 2), (6, 2), (7, 2), (7, 1)) == ["eth0", "veth7", "veth7", "lo"]
    assert networks(found, (5, 2), (6, 1), (99, 1)) == [10, 20, None]
    # A namespace that was gone before anyone looked tells nothing; without a socket what all share is known.
    assert names(found, (8, 2), (None, 2), (None, 1), (99, 1)) == [None, None, "lo", "lo"]


def test_an_interface_that_changed_is_one_row():
    found = survey({"interfaces": [*HERE, HERE[1] | {"mtu": 1400, "addresses": ["10.0.0.1/8"]}]})
    assert rows(found).select("ifindex", "mtu").rows() == [(1, None), (2, 1400)]


def test_spools_of_older_versions_have_no_namespaces():
    plain = [{"ifindex": 1, "interface": "lo", "addresses": [], "mtu": 65536, "mac": ""}]
    assert names(survey({"interfaces": plain}), (5, 1)) == ["lo"]
    assert networks(survey({"interfaces": plain}), (5, 1)) == [None]
    assert rows(survey()).is_empty()
