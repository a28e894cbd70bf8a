#!/usr/bin/env bash
# The long versions of the recorder's tests: 200 kills at random moments, a halt of 30 s, a day of a segment a minute. As root; takes
# half an hour. What was measured is printed at the end, a line of JSON each.
set -euo pipefail
cd "$(dirname "$0")/.."
export STRATOKIT_KILLS=${STRATOKIT_KILLS:-200} STRATOKIT_HALT_S=${STRATOKIT_HALT_S:-30} STRATOKIT_SEGMENTS=${STRATOKIT_SEGMENTS:-1440}
exec .venv/bin/python -m pytest -rP --durations=0 tests/kernel/test_loss.py tests/kernel/test_disturbed.py tests/kernel/test_rotation.py \
    -k "killed_at_any_moment or halted or a_day" "$@"
