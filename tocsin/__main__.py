"""`python -m tocsin` is `tocsin`: how the supervisor starts its children without looking for a script on PATH."""

from __future__ import annotations

from tocsin.cli import main

main()
