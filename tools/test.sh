#!/usr/bin/env bash
# Run the test suite: everything in parallel, then the kernel tests alone, because they measure what the
# whole machine does. Arguments go to both runs. The summary lines of both are the last lines printed.
set -uo pipefail
cd "$(dirname "$0")/.."

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
color=no
[ -t 1 ] && color=yes

# run NAME ARGUMENTS...: pytest's own output on the terminal and in a log.
run() {
    local log=$logs/$1
    shift
    .venv/bin/python -m pytest --color=$color "$@" | tee "$log"
    local code=${PIPESTATUS[0]}
    [ "$code" -eq 5 ] && code=0 # no test matched; conftest.py fails the run where that is not allowed
    return "$code"
}

run parallel -n auto -m "not kernel and not bench" --kernel-elsewhere "$@"
parallel=$?
run kernel -m "kernel and not bench" "$@"
kernel=$?

echo
echo "In parallel, then alone with the kernel:"
tail -q -n 1 "$logs/parallel" "$logs/kernel"
[ $parallel -eq 0 ] && [ $kernel -eq 0 ]
