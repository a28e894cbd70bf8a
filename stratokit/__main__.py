"""`python -m stratokit`, the same as the program `stratokit`."""

from __future__ import annotations

from stratokit.cli.app import main

main()
