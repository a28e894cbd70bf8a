"""A filter selects exactly the frames that tshark 4.0 selects; docs/filters.md has the rules where not."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.engine.capture import Capture
from stratokit.engine.fields import catalogue, elsewhere
from stratokit.filters.compile import compile_filter
from stratokit.filters.errors import FilterError
from tests.helpers import tshark
from tests.helpers.corpus import CORPUS, MARKS
from tests.helpers.tshark_filters import digest, facts, frames

CAPTURES = {name: list(group) for name, group in groupby(facts(), key=lambda fact: fact.capture)}


def needs_corpus(test):
    for mark in MARKS:
        test = mark(test)
    return test


def test_there_are_enough_expressions_to_mean_something():
    assert len(facts()) >= 150
    assert len({fact.filter for fact in facts()}) >= 150
    assert len(CAPTURES) == len({fact.capture for fact in facts()}), "lines of one capture stand together"


@needs_corpus
@pytest.mark.parametrize("name", CAPTURES)
def test_the_frames_are_those_of_the_facts(name):
    capture = Capture.open(CORPUS / name)
    capture.keep(["packets"])
    wrong = []
    for fact in CAPTURES[name]:
        numbers = capture.table("packets", where=fact.filter).select("frame").collect()["frame"].to_list()
        if (len(numbers), digest(numbers)) != (fact.count, fact.digest):
            wrong.append(f"{fact.filter}: {len(numbers)} frames, tshark {fact.count}")
    assert not wrong


@needs_corpus
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_the_facts_are_what_tshark_says():
    version = tshark.run("tshark", "--version")[0].split()[2]
    if not version.startswith("4.0."):
        pytest.skip(f"the facts are tshark 4.0's, this is {version}")
    # One in five, for all take minutes; tools/filter_facts.py asks for all.
    asked = facts()[2::5]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda fact: frames(CORPUS / fact.capture, fact.filter), asked)
    wrong = [fact for fact, got in zip(asked, found, strict=True) if (len(got), digest(got)) != fact[2:]]
    assert not wrong


@needs_corpus
def test_a_filter_means_the_same_whether_it_goes_down_to_the_file_or_not():
    """The packet file's scan gets the filter; the kept table is filtered in memory."""
    name = "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/sll.pcap"
    for fact in CAPTURES[name]:
        found = Capture.open(CORPUS / name).table("packets", where=fact.filter).select("frame").collect()
        assert digest(found["frame"].to_list()) == fact.digest, fact.filter


# --- no text raises anything but a FilterError --------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *(
            "tcp.port",
            "ip.addr",
            "ip",
            "tcp",
            "udp",
            "http",
            "frame",
            "frame.time",
            "frame.time_delta",
            "eth.src",
        ),
        *(
            "http.host",
            "http.request.method",
            "dns.qry.name",
            "dns.a",
            "tcp.flags.syn",
            "tcp.payload",
            "nonsense",
        ),
        *(
            "==",
            "!=",
            "===",
            "!==",
            "<",
            ">=",
            "contains",
            "matches",
            "in",
            "{",
            "}",
            "(",
            ")",
            ",",
            "..",
            "&",
            "+",
        ),
        *(
            "-",
            "*",
            "/",
            "%",
            "and",
            "or",
            "xor",
            "not",
            "any",
            "all",
            "[0:4]",
            "[-1]",
            "[1-2,5]",
            "[3:]",
            "&&",
        ),
        *("80", "0x1f", "1.5", "10ms", "10.0.0.1", "10.0.0.0/8", "::1", "fe80::/10", "aa:bb:cc", "ff", "-1"),
        *('"x"', 'r"a+"', "'a'", '"("', '"2026-01-01"', "true", "99999999999999999999", "1..5", "1e9"),
        *(
            "len(",
            "max(",
            "min(",
            "abs(",
            "count(",
            "lower(",
            "upper(",
            "string(",
            "${x}",
            "@",
            "#",
            "[",
            '"',
        ),
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=14))
def test_any_words_compile_or_raise_a_filter_error(words):
    text = " ".join(words)
    try:
        found = compile_filter(text, catalogue("packets"), elsewhere("packets"))
    except FilterError as error:
        place = (error.at, error.end)
    else:
        place = (0, 0)
        assert isinstance(found, pl.Expr)
    assert 0 <= place[0] <= place[1] <= len(text) + 1
