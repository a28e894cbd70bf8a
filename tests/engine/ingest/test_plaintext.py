"""Plaintext that a recorder took from OpenSSL, by hand: rows, streams, and the packets that carried it."""

import polars as pl
import pytest
from helpers.spool_bytes import BEGAN, LAST, PLACED, READ, WRITTEN, said
from helpers.spool_bytes import tls_capture as capture

from stratokit.streams.plaintext import _completed

REQUEST = b"GET /a HTTP/1.1\r\nHost: shop\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


def http(folder, *events):
    (row,) = capture(folder, *events).table("http").collect().to_dicts()
    return row


def test_a_request_without_packets(tmp_path):
    row = http(
        tmp_path,
        said(1000, WRITTEN, REQUEST),
        said(5000, READ, RESPONSE),
        said(5020, READ, b"hel", len(RESPONSE)),
        said(5040, READ, b"lo", len(RESPONSE) + 3),
    )
    assert (row["method"], row["host"], row["path"], row["status"]) == ("GET", "shop", "/a", 200)
    assert (row["response_body_bytes"], row["response_cut"]) == (5, False)
    # From when it was given to OpenSSL to when it was got from it; no packet is known.
    assert row["latency_ns"] == 4010
    assert (row["request_frame"], row["response_frame"], row["response_last_frame"]) == (None, None, None)
    assert row["pid"] == 7


def test_a_lost_piece_is_a_gap(tmp_path):
    row = http(
        tmp_path,
        said(1000, WRITTEN, REQUEST),
        said(5000, READ, RESPONSE.replace(b"5", b"50")),
        said(6000, READ, b"x" * 20, len(RESPONSE) + 1 + 30),
    )
    assert row["response_cut"] is True


def test_sessions_without_socket_stay_apart(tmp_path):
    rows = capture(
        tmp_path,
        said(1000, WRITTEN, REQUEST),
        said(1001, WRITTEN, REQUEST.replace(b"/a", b"/b"), session=100),
        said(5000, READ, RESPONSE + b"12345", session=100),
        said(5001, READ, RESPONSE.replace(b"200", b"404") + b"12345"),
    )
    found = rows.table("http").select("path", "status").collect()
    assert found.rows() == [("/a", 404), ("/b", 200)]


def test_info_says_so(tmp_path):
    facts = capture(tmp_path, said(1000, WRITTEN, REQUEST)).info()
    assert facts["rows"]["plaintext"] == 1


@pytest.mark.parametrize("first", [1000, 2**32 - 20_000])
def test_where_the_ciphertext_of_each_piece_ends(tmp_path, first):
    """A write of 40000 bytes is three records, with 22 bytes around each."""
    sizes = [16384, 16384, 7232]
    more = {"moved_bytes": 40_000, "first_seq": first, "next_seq": (first + 40_000 + 66) % 2**32}
    events = [
        said(
            1000,
            WRITTEN,
            bytes(size),
            at,
            at_bytes=at,
            flags=BEGAN | PLACED | (LAST if i == 2 else 0),
            **more,
        )
        for i, (size, at) in enumerate(zip(sizes, (0, 16384, 32768), strict=True))
    ]
    rows = capture(tmp_path, *events).rows("plaintext").collect().sort("tls_position")
    ends = [16406, 32812, 40066]
    assert rows["cipher_next_seq"].to_list() == [(first + end) % 2**32 for end in ends]
    assert rows["orig_len"].to_list() == sizes


def test_what_was_cut_has_its_length(tmp_path):
    event = said(1000, WRITTEN, b"GET /" + bytes(995), moved_bytes=5000, flags=BEGAN | LAST | 8)
    (row,) = capture(tmp_path, event).rows("plaintext").select("orig_len", "cap_len").collect().rows()
    assert row == (5000, 1000)


def test_a_piece_counts_from_the_packet_that_completed_it():
    """Out of order, sent again, and around the end of the numbers."""
    base = 2**32 - 50
    order = [(0, 50), (100, 50), (50, 50), (100, 50)]  # places and sizes, as they came
    packets = pl.DataFrame(
        {
            "socket_cookie": pl.Series([1] * 4, dtype=pl.UInt64),
            "direction": ["in"] * 4,
            "tcp_seq": pl.Series([(base + at) % 2**32 for at, _ in order], dtype=pl.UInt32),
            "payload_len": [size for _, size in order],
            "frame": pl.Series([11, 12, 13, 14], dtype=pl.UInt64),
            "ts": [1, 2, 3, 4],
        }
    )
    plain = pl.DataFrame(
        {
            "socket_cookie": pl.Series([1] * 4, dtype=pl.UInt64),
            "direction": ["in", "in", "in", "out"],
            "cipher_next_seq": pl.Series(
                [(base + end) % 2**32 for end in (40, 100, 150, 10)], dtype=pl.UInt32
            ),
        }
    )
    assert _completed(plain, packets)["frame"].to_list() == [11, 13, 13, None]
