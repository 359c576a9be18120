"""Timers in time, pools that end, and calls that are given up on."""

from __future__ import annotations

import threading
import time

import pytest
from scene import until

from playbooks import threads
from playbooks.threads import Pool, Timers, TooManyHanging, bounded


def test_timers_call_in_order_of_time() -> None:
    called: list[int] = []
    timers = Timers()
    timers.start()
    for delay_ms in (60, 20, 40, 0, -5):
        timers.after(delay_ms / 1000, lambda n=delay_ms: called.append(n))  # type: ignore[misc]
    timers.at(time.time_ns() + 30_000_000, lambda: called.append(30))
    timers.after(3600, lambda: called.append(-1))
    until(lambda: len(called) == 6)
    timers.stop()
    assert called == [-5, 0, 20, 30, 40, 60]


def test_a_timer_that_raises_harms_no_other() -> None:
    timers, done = Timers(), threading.Event()
    timers.start()
    timers.after(0, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    timers.after(0.01, done.set)
    assert done.wait(5)
    timers.stop()


def test_a_pool_lets_calls_end_and_drops_what_waits() -> None:
    pool, begun, release, dropped = Pool("test", 1), threading.Event(), threading.Event(), []
    pool.start()
    pool.put(lambda: (begun.set(), release.wait(5)) and None)
    pool.put(lambda: dropped.append(1))
    assert begun.wait(5)
    assert not pool.stop(0.01)
    release.set()
    assert not dropped


def test_bounded_gives_what_the_call_gave() -> None:
    assert bounded(lambda: 7, time.monotonic() + 5) == 7
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 / 0, time.monotonic() + 5)


def test_bounded_gives_up_and_bounds_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(threads, "MAX_HANGING", threads.hanging() + 1)
    with pytest.raises(TimeoutError):
        bounded(lambda: release.wait(5), time.monotonic() + 0.01)
    with pytest.raises(TooManyHanging):
        bounded(lambda: 7, time.monotonic() + 5)
    release.set()
    until(lambda: threads.hanging() < threads.MAX_HANGING)
    assert bounded(lambda: 7, time.monotonic() + 5) == 7
