#!/usr/bin/env bash
# Print the newest Python >= 3.11 on this machine that can make virtual environments; exit 1 if there is none.
for name in python3.14 python3.13 python3.12 python3.11 python3; do
    # Running it matters: version managers put launchers on PATH for versions that are switched off.
    "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    command -v "$name"
    exit 0
done
exit 1
