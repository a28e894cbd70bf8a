"""Constants of HPACK (RFC 7541): the static table of appendix A and the Huffman code of appendix B.

The Huffman code is canonical: from the lengths of its codes, in order of length and symbol, follow the codes.
"""

from __future__ import annotations

import numpy as np

# Length in bits of the code of each byte, and of EOS (256).
_BITS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
)  # fmt: skip
MAX_BITS = 30
EOS = 256

# Index 1 to 61; a name without a value has an empty one.
_STATIC = """:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate"""


def _huffman() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(symbols in order of their codes; per length the first code, and where its symbols begin)."""
    symbols = sorted(range(257), key=lambda s: (_BITS[s], s))
    first, begin = np.zeros(MAX_BITS + 2, np.int64), np.zeros(MAX_BITS + 2, np.int64)
    code = 0
    for bits in range(1, MAX_BITS + 2):
        code <<= 1
        first[bits] = code
        begin[bits] = sum(b < bits for b in _BITS)
        code += _BITS.count(bits)
    return np.array(symbols, np.int64), first, begin


def _static() -> tuple[np.ndarray, np.ndarray]:
    """All texts in one buffer; for each index where its name and its value stand there, with their sizes."""
    text = b""
    places = [(0, 0, 0, 0)]
    for line in _STATIC.splitlines():
        name, _, value = line.encode().partition(b" ")
        places.append((len(text), len(name), len(text) + len(name), len(value)))
        text += name + value
    return np.frombuffer(text, np.uint8), np.array(places, np.int64)


SYMBOLS, FIRST_CODE, FIRST_SYMBOL = _huffman()
STATIC_TEXT, STATIC_PLACES = _static()
STATIC_ENTRIES = len(STATIC_PLACES) - 1
