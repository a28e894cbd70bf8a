#!/usr/bin/env python3
"""Record without converting, and print totals: what bench_recorder.py measures.

only_record.py SPOOL SYSCALLS [--calls-only]
"""

import json
import sys
from pathlib import Path

from stratokit.record.options import RecordOptions
from stratokit.record.session import record

spool, syscalls = Path(sys.argv[1]), sys.argv[2]
calls_only = "--calls-only" in sys.argv
status = record(
    RecordOptions(
        output=spool, spool=spool, syscalls=syscalls, packets=not calls_only, sockets=not calls_only
    )
).status
print(json.dumps({"events": sum(status.counts.values()), "lost": sum(status.lost.values())}))
