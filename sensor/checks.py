"""What this host lets the sensor do, each with the command that mends it. For `tocsin doctor`."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    name: str
    ok: bool
    detail: str
    remedy: str
    """The command that mends it; empty when it is fine."""


def capabilities() -> list[Check]:
    """Every condition of capture, tried on this host; needs no rights and changes nothing."""
    return []
