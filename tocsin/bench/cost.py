"""Processor time of all of Tocsin's processes together: at rest, and while 1,000 events a second go through."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tocsin.bench import Figure
from tocsin.lab import runs
from tocsin.lab.instance import Instance
from tocsin.lab.synthetic import Producer, execs

RATE = 1000
SECONDS = 20
SETTLE_S = 5.0
IDLE_PERCENT, LOADED_PERCENT = 1.0, 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


def run(count: int | None, store_url: str, say: Callable[[str], None]) -> Sequence[Figure]:
    seconds = count or SECONDS
    with Instance({"store": {"url": store_url, "namespace": "bench"}}) as tocsin:
        time.sleep(SETTLE_S)
        say(f"{seconds} s at rest")
        idle = _percent(tocsin, lambda: time.sleep(seconds))
        say(f"{seconds} s with {RATE} events a second, in posts of 10")
        load = execs(runs.new(), RATE * seconds)
        loaded = _percent(tocsin, lambda: Producer(tocsin, RATE, batch=10).send(load))
    return [
        *(Figure(f"at rest, {name}", value, "% of a core") for name, value in idle.items()),
        Figure("at rest, all", sum(idle.values()), "% of a core", at_most=IDLE_PERCENT),
        *(Figure(f"{RATE} events/s, {name}", value, "% of a core") for name, value in loaded.items()),
        Figure(f"{RATE} events/s, all", sum(loaded.values()), "% of a core", at_most=LOADED_PERCENT),
    ]


def _percent(tocsin: Instance, work: Callable[[], None]) -> dict[str, float]:
    """Per process: its processor time during `work`, in percent of the time that took."""
    begun, before = time.monotonic(), _spent(tocsin)
    work()
    lasted, after = time.monotonic() - begun, _spent(tocsin)
    return {name: 100 * (after[name] - before[name]) / lasted for name in before}


def _spent(tocsin: Instance) -> dict[str, float]:
    """Process -> seconds of processor time since it started."""
    state = tocsin.state() or {"pid": 0, "processes": {}}
    pids = {"supervisor": state["pid"], **{name: child["pid"] for name, child in state["processes"].items()}}
    return {name: _seconds(pid) for name, pid in pids.items()}


def _seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
