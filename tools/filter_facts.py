#!/usr/bin/env python3
"""Ask tshark anew which frames the filters of tests/filters/tshark.tsv select, and write what it says there.

A line has a capture of the corpus, a filter, how many frames tshark selects, and a digest of their numbers.
Add a line with the first two to ask for a new one: `tools/filter_facts.py`.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.corpus import CORPUS
from tests.helpers.tshark_filters import FACTS, digest, frames, parts


def main() -> int:
    """Write the facts; tell what tshark refuses."""
    asked = [parts(line) for line in FACTS.read_text().splitlines()]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda fact: frames(CORPUS / fact.capture, fact.filter), asked))
    lines = [
        f"{fact.capture}\t{fact.filter}\t{len(numbers)}\t{digest(numbers)}\n"
        for fact, numbers in zip(asked, found, strict=True)
    ]
    FACTS.write_text("".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
