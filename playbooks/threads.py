"""Threads: timers, a bounded pool, and calls that are given up on when they hang. Owns no meaning.

All threads are daemons: a call that hangs must not keep the process from ending, and the ledger knows the rest.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_HANGING = 64
"""Calls given up on whose threads are still there. Beyond it nothing new is called until some of them end."""


class Timers:
    """Calls functions at their time, on one thread, which sleeps in between. They must be short.

    Times are of the wall clock when set; from then on a step of the wall clock moves nothing.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def at(self, wall_ns: int, call: Callable[[], None]) -> None:
        """Calls it then, or at once if that is past."""
        self.after((wall_ns - time.time_ns()) / 1e9, call)

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + delay_s, next(self._numbers), call))
            self._changed.notify()

    def stop(self) -> None:
        """What is not due yet is dropped: it is in the ledger."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        while call := self._next():
            guarded(call)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._stopped:
                wait_s = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._heap)[2]
                # threading refuses waits beyond about 292 years, some platforms much shorter ones.
                self._changed.wait(None if wait_s is None else min(wait_s, 86400.0))
        return None


class Pool:
    """A fixed number of threads that call what is put in, in order."""

    def __init__(self, name: str, size: int) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{n}", daemon=True) for n in range(1, size + 1)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def put(self, call: Callable[[], None]) -> None:
        self._queue.put(call)

    def waiting(self) -> int:
        return self._queue.qsize()

    def stop(self, within_s: float) -> bool:
        """Lets running calls end, drops those that wait. False when some were still running after that time."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while call := self._queue.get():
            guarded(call)


class TooManyHanging(Exception):
    """So many earlier calls hang that no new one is begun."""


class _Outcome(Generic[T]):
    """What a call gave, across threads."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.value: T
        self.error: BaseException | None = None


_hanging = 0
_hanging_lock = threading.Lock()


def bounded(call: Callable[[], T], deadline: float) -> T:
    """What `call` returns or raises. TimeoutError at time.monotonic() `deadline`; the call may still end later.

    Raises TooManyHanging, without calling, when MAX_HANGING earlier calls never returned.
    """
    global _hanging
    if _hanging >= MAX_HANGING:
        raise TooManyHanging(f"{MAX_HANGING} earlier calls still hang")
    outcome: _Outcome[T] = _Outcome()
    given_up = False

    def run() -> None:
        global _hanging
        try:
            outcome.value = call()
        except BaseException as e:
            outcome.error = e
        with _hanging_lock:
            outcome.ended.set()
            _hanging -= given_up

    threading.Thread(target=run, name="call", daemon=True).start()
    if not outcome.ended.wait(max(0.0, deadline - time.monotonic())):
        with _hanging_lock:
            if not outcome.ended.is_set():
                given_up = True
                _hanging += 1
        if given_up:
            raise TimeoutError
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def hanging() -> int:
    """How many calls were given up on and have not returned."""
    return _hanging


def guarded(call: Callable[[], Any]) -> None:
    """Calls it; an error it did not handle is logged and must not end the thread."""
    try:
        call()
    except Exception:
        log.exception("an error that nobody handled")
