"""Notes on single frames of HTTP/2, header fields and messages of gRPC, where filters ask for them."""

from __future__ import annotations

import numpy as np

from stratokit.kernels import routine

# A note: what it is about; where in the buffer the last byte is of what completes it; and four values:
# of a frame its type, flags, stream and length; of a header field the places of its name and its value in the
# text buffer, each with a size, as hpack has them; of a message of gRPC the compressed flag and its length.
PREFACE, FRAME, FIELD, MESSAGE = range(4)
WHAT, LAST, VALUES = range(3)
NOTE_FIELDS = 6


def new_notes(*, wanted: bool) -> np.ndarray:
    """Room for notes; without any none are made."""
    return np.empty((256 if wanted else 0, NOTE_FIELDS), np.int64)


@routine
def note(notes: np.ndarray, n: int, what: int, last: int, values: np.ndarray) -> int:
    """Put a note behind n where notes are made: how many there are then."""
    if notes.shape[0] == 0:
        return n
    notes[n, WHAT], notes[n, LAST] = what, last
    for k in range(NOTE_FIELDS - VALUES):
        notes[n, VALUES + k] = values[k]
    return n + 1
