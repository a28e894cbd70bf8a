#!/usr/bin/env bash
# Make .venv with the project in it, editable; `tools/venv.sh dev` adds what tests need.
# Does nothing when that was already done with the present pyproject.toml at the present place.
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${1:-}
key=$({ pwd; cat pyproject.toml; } | cksum)
done_before() { [ "$(cat ".venv/stamp-$1" 2>/dev/null)" = "$key" ]; }

if .venv/bin/python -c '' 2>/dev/null; then
    if done_before dev || { [ -z "$extra" ] && done_before run; }; then exit 0; fi
else
    python=$(tools/find_python.sh) || {
        echo "stratokit needs Python 3.11 or newer with venv (Debian and Ubuntu: apt install python3-venv)." >&2
        exit 1
    }
    echo "making .venv with $("$python" --version)"
    rm -rf .venv # a half-made one, or one whose Python has gone
    "$python" -m venv .venv
fi

echo "installing stratokit${extra:+ and its $extra tools} into .venv"
rm -f .venv/stamp-*
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}"
echo "$key" >".venv/stamp-${extra:-run}"
