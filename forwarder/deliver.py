"""One sink's way through one topic, on its own thread: read, deliver, retry, advance. Never gives up, never skips."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import tenacity

from forwarder.dead_letters import DeadLetters, Letter
from forwarder.limits import Limits
from forwarder.position import Place, Position
from forwarder.reader import Batch, Reader
from forwarder.sinks import ALERTS, Outcome, Sink
from forwarder.spool import Spool
from tocsin.errors import Rejected, RetryLater

log = logging.getLogger(__name__)

_RECENT_IDS = 4096
_MAX_ERROR = 300
_AFTER_DEFECT_S = 1.0
_SAY_AFTER_S = 3.0
"""A sink that is away for less than this is not worth a log line: all start and restart at their own pace."""


class _Moved(Exception):
    """The batch on its way is not wanted any more: the lane stops, or its position was moved."""


class Lane:
    """Delivers a topic to a sink, in order, at least once. Sleeps until the spool wakes it; there is no polling."""

    def __init__(
        self,
        topic: str,
        name: str,
        sink: Sink,
        spool: Spool,
        position: Position,
        letters: DeadLetters,
        lose: Callable[[range], None],
        limits: Limits,
    ) -> None:
        """`lose` is told of offsets that this sink will never get."""
        self.topic = topic
        self.name = name
        self.position = position
        self.acknowledged: dict[str, int] = {}
        """Of the alerts: id -> wall clock (ns) when this sink first had taken it; the newest few thousand."""
        self._sink = sink
        self._spool = spool
        self._letters = letters
        self._lose = lose
        self._limits = limits
        self._reader = Reader(spool)
        self._thread = threading.Thread(target=self._run, name=f"{topic}-to-{name}", daemon=True)
        self._stopping = False
        self._interrupt = threading.Event()
        self._sending = threading.Lock()
        self._counts = {"delivered": 0, "rejected": 0, "retries": 0}
        self._state = "waiting"
        self._error: dict[str, Any] | None = None
        self._said = False
        self._backoff = tenacity.wait_random_exponential(multiplier=0.05, max=limits.max_wait_s, min=0.01)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No further batch and no further attempt; an attempt under way ends by itself. See `join`."""
        self._stopping = True
        self.wake()

    def join(self, timeout_s: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def wake(self) -> None:
        """Ends a pause between attempts: the position was moved, or the receiver is back."""
        self._interrupt.set()
        self._spool.wake()

    def settled(self, timeout_s: float) -> bool:
        """Waits until no batch from before the last rewind can reach the sink any more; False when it takes longer."""
        if not self._sending.acquire(timeout=timeout_s):
            return False
        self._sending.release()
        return True

    @property
    def busy(self) -> bool:
        """There is something to deliver and the sink takes it."""
        idle = self._state == "retrying" or not self._thread.is_alive()
        return not idle and self.position.cursor < self._spool.next_offset

    def status(self) -> dict[str, Any]:
        cursor = self.position.cursor
        lag = self._spool.missing(cursor, max(cursor, self._spool.next_offset))
        return {"cursor": cursor, "lag": lag, "state": self._state, **self._counts, "error": self._error}

    # on the thread

    def _run(self) -> None:
        while not self._stopping:
            try:
                while (claimed := self._next()) is not None:
                    self._deliver(*claimed)
            except Exception as e:  # a defect of ours: even so nobody waits for ever, and nothing is passed over
                log.exception("%s failed and goes on", self._thread.name, extra={"event.action": "delivery_failed"})
                self._failed(f"internal error: {e!r}")
                self.position.again()
                self._interrupt.wait(_AFTER_DEFECT_S)
        self._state = "stopped"
        self._reader.close()
        self._sink.close()

    def _next(self) -> tuple[Batch, int] | None:
        """The next batch, claimed, with the position's generation; None when stopping."""
        while not self._stopping:
            self._interrupt.clear()
            place = self.position.place()
            self._spool.wait(partial(self._due, place))
            batch = self._read(place)
            if batch is None:
                continue
            if batch.offset > place.offset:
                self._lose(self.position.skip(batch.offset, place))
            elif self.position.claim(place, batch.end):
                return batch, place.generation
        return None

    def _due(self, place: Place) -> bool:
        """There is something to read, or reason to look at the position again."""
        return self._stopping or self._spool.next_offset > place.offset or self._moved(place.generation)

    def _moved(self, generation: int) -> bool:
        return self._stopping or self.position.generation != generation

    def _read(self, place: Place) -> Batch | None:
        if self._spool.next_offset <= place.offset:
            return None
        try:
            return self._reader.read(place.offset, self._limits.batch_records, self._limits.batch_bytes)
        except OSError as e:
            self._failed(f"the spool cannot be read: {e}")
            self._interrupt.wait(1.0)
            return None

    def _deliver(self, batch: Batch, generation: int) -> None:
        """Until the sink has taken or refused every record, or the lane is stopped, or its position was moved."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_not_exception_type((Rejected, _Moved)),
            wait=self._pause,
            sleep=self._sleep,
            before_sleep=self._retry,
        )
        parts = [batch]
        try:
            while parts:
                part = parts.pop()
                self._state = "delivering"
                try:
                    retrying(self._attempt, part, generation)
                except Rejected:  # as a whole: one record must be at fault
                    half = len(part.lines) // 2
                    parts.append(Batch(part.offset + half, part.lines[half:]))
                    parts.append(Batch(part.offset, part.lines[:half]))
        except _Moved:
            return  # what was not taken is read again, from the cursor
        finally:
            self._state = "waiting"
        if self._said:
            log.info("%s: takes again", self._thread.name, extra={"event.action": "delivery_resumed"})
        self._error, self._said = None, False
        self.position.taken(generation)

    def _attempt(self, batch: Batch, generation: int) -> None:
        try:
            with self._sending:
                if self._moved(generation):
                    raise _Moved
                outcomes = self._sink.deliver(self.topic, batch.offset, batch.lines)
        except Rejected as e:
            if len(batch.lines) > 1:
                raise
            outcomes = [Outcome(rejected=str(e))]
        if len(outcomes) != len(batch.lines):
            raise RuntimeError(f"{self.name} gave {len(outcomes)} outcomes for {len(batch.lines)} records")
        self._settle(batch, outcomes)

    def _settle(self, batch: Batch, outcomes: Sequence[Outcome | None]) -> None:
        letters = [
            Letter.of(self.topic, batch.offset + i, outcome.rejected, batch.lines[i])
            for i, outcome in enumerate(outcomes)
            if outcome is not None and outcome.rejected is not None
        ]
        self._letters.add(letters)
        self._counts["rejected"] += len(letters)
        self._counts["delivered"] += len(outcomes) - len(letters)
        if self.topic == ALERTS:
            self._acknowledge(outcomes)

    def _acknowledge(self, outcomes: Sequence[Outcome | None]) -> None:
        now = time.time_ns()
        for outcome in outcomes:
            if outcome is not None and outcome.id is not None and outcome.rejected is None:
                self.acknowledged.setdefault(outcome.id, now)
        while len(self.acknowledged) > _RECENT_IDS:
            del self.acknowledged[next(iter(self.acknowledged))]

    def _sleep(self, seconds: float) -> None:
        self._interrupt.wait(seconds)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """Exponential with jitter; longer when the receiver asks for it."""
        error = state.outcome.exception() if state.outcome is not None else None
        advice = error.after_s if isinstance(error, RetryLater) else None
        return max(self._backoff(state), min(advice or 0.0, self._limits.max_retry_after_s))

    def _retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(error, RetryLater) and state.attempt_number == 1:
            log.error(
                "%s: %r; the batch is tried again", self._thread.name, error,
                exc_info=error, extra={"event.action": "delivery_failed"},
            )  # fmt: skip
        self._state = "retrying"
        self._counts["retries"] += 1
        self._failed(str(error) or type(error).__name__)

    def _failed(self, text: str) -> None:
        since = self._error["since"] if self._error else datetime.now(UTC)
        self._error = {"text": text[:_MAX_ERROR], "since": since}
        if not self._said and (datetime.now(UTC) - since).total_seconds() > _SAY_AFTER_S:
            self._said = True
            log.warning(
                "%s: %s; tried again until it works, nothing is lost meanwhile", self._thread.name, text[:_MAX_ERROR],
                extra={"event.action": "delivery_delayed"},
            )  # fmt: skip
