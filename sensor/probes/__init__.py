"""The registry of probes: a probe is bpf/<stem>.c and sensor/probes/<stem>.py, found by the file's name."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import cast

from sensor.sighting import Probe
from tocsin.errors import TocsinError

SOURCES = Path(__file__).resolve().parents[2] / "bpf"


def names() -> list[str]:
    """All probes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Probe:
    """The module of one probe. Raises TocsinError for one that has no C side or does not exist."""
    if name not in names():
        raise TocsinError(f"there is no probe {name!r}; there are {', '.join(names())}")
    if not source(name).is_file():
        raise TocsinError(f"the probe {name} has no {source(name)}")
    return cast(Probe, importlib.import_module(f"{__name__}.{name}"))


def load_all() -> dict[str, Probe]:
    return {name: load(name) for name in names()}


def source(name: str) -> Path:
    return SOURCES / f"{name}.c"
