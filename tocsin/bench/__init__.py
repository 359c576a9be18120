"""Benchmarks on this machine. The file name is the registry: `tocsin bench response` runs tocsin/bench/response.py.

Each measures the whole program from outside, on containers or records of its own, and says what it is held to.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

from tocsin.errors import UsageError


@dataclass(frozen=True)
class Figure:
    """One measured number, and what it is held to."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    ceiling: float | None = None
    """What this machine gives without us: the same work done bare."""

    @property
    def ok(self) -> bool:
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def bound(self) -> str:
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"

    def compared(self) -> str:
        return f"{self.value / self.ceiling:.0%} of {self.ceiling:,.0f} bare" if self.ceiling else ""

    def json(self) -> dict[str, Any]:
        known = {key: value for key, value in asdict(self).items() if value is not None}
        if self.ceiling:
            known["ratio"] = round(self.value / self.ceiling, 3)
        return {**known, "ok": self.ok}


class Bench(Protocol):
    """What each module offers. Its docstring says what is measured, in one line."""

    def run(self, count: int | None, store_url: str, say: Callable[[str], None]) -> Sequence[Figure]:
        """Measures; `count` None is the benchmark's own default. TocsinError when it could not be measured."""


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Bench:
    """UsageError names those there are."""
    if name not in names():
        raise UsageError(f"there is no benchmark {name!r}: there are {', '.join(names())}")
    return cast(Bench, importlib.import_module(f"{__name__}.{name}"))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all are at or below. Of none: an error, for there is nothing to report."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
