"""Messages to receivers outside, kept until they are taken. Owns when each is sent and when it is given up.

One thread per receiver's host, so one that hangs blocks nobody else. At least once: a crash between sending and noting
it sends the same id again. What is given up is a dead letter: kept, shown, and sent again when a person asks.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from ecs_mappings.event import decode
from playbooks.action import Delivery, Secrets
from playbooks.delivery import NotYet
from playbooks.document import Retry
from playbooks.ledger import Ledger, LedgerUnavailable
from playbooks.records import Message
from playbooks.references import reveal
from playbooks.responses import of_delivery
from playbooks.threads import Timers, TooManyHanging, bounded, guarded
from tocsin.errors import Rejected, RetryLater, TocsinError

log = logging.getLogger(__name__)

Send = Callable[[Delivery], object]
"""Sends one message and returns when the receiver took it. Raises RetryLater, or Rejected: never send it again."""

SEND_TIMEOUT_S = 60.0
LONGEST_WAIT_S = 300.0
GIVE_UP_S = 24 * 3600.0
LEDGER_WAIT_S = 5.0
MAX_LANES = 32
"""Receivers served at the same time; the next one waits until a lane is free."""
MAX_REASON_CHARS = 500


def message_of(delivery: Delivery, run_id: str, step_id: str, retry: Retry | None, now_ns: int) -> Message:
    """The delivery as it is kept. Without `retry` it is tried for a day."""
    return Message(
        id=delivery.id,
        run_id=run_id,
        step_id=step_id,
        sender=delivery.sender,
        url=delivery.url,
        headers=dict(delivery.headers),
        body=delivery.body,
        sign_with=delivery.sign_with,
        max_attempts=retry.attempts if retry else None,
        backoff_s=retry.backoff if retry else 1.0,
        factor=retry.factor if retry else 2.0,
        give_up_ns=now_ns + int(GIVE_UP_S * 1e9),
        next_ns=now_ns,
        created_ns=now_ns,
    )


class Outbox:
    """Safe to share between threads. `ended` is called when something new is in the ledger."""

    def __init__(self, ledger: Ledger, send: Send, secrets: Secrets, timers: Timers, ended: Callable[[], None]) -> None:
        self._ledger = ledger
        self._send = send
        self._secrets = secrets
        self._timers = timers
        self._ended = ended
        self._lock = threading.Condition()
        self._lanes: dict[str, deque[str]] = {}
        self._waiting: deque[tuple[str, str]] = deque()
        self._stopped = False

    def recover(self) -> None:
        self.posted(self._ledger.messages("pending", limit=1_000_000))

    def posted(self, messages: list[Message]) -> None:
        """These are in the ledger; each is sent when its time has come."""
        for message in messages:
            # Not the message itself: a receiver that is away for a day must not fill the memory with bodies.
            self._timers.at(message.next_ns, functools.partial(self._due, message.id, message.url))

    def resend(self, id: str) -> Message:
        """Takes a dead letter out again. Rejected when there is none of this id."""
        found = self._ledger.message(id)
        if found is None or found.state != "dead":
            raise Rejected(f"there is no dead letter {id[:40]!r}")
        now = time.time_ns()
        again = msgspec.structs.replace(
            found, state="pending", attempts=0, next_ns=now, give_up_ns=now + int(GIVE_UP_S * 1e9), ended_ns=None
        )
        with self._ledger.writing() as tx:
            tx.put(again)
            tx.audit("resent", run=found.run_id, step=found.step_id, delivery=id)
        self.posted([again])
        return again

    def stop(self, within_s: float) -> bool:
        """Begins nothing new; what is not delivered is in the ledger. False when some were still sending after that."""
        with self._lock:
            self._stopped = True
            return self._lock.wait_for(lambda: not self._lanes, within_s)

    def _due(self, id: str, url: str) -> None:
        self._enter(self._lane(url), id)

    def _enter(self, lane: str, id: str) -> None:
        with self._lock:
            if self._stopped:
                return
            if lane in self._lanes:
                self._lanes[lane].append(id)
            elif len(self._lanes) >= MAX_LANES:
                self._waiting.append((lane, id))
            else:
                self._open(lane, id)

    def _lane(self, url: str) -> str:
        try:
            return urlsplit(reveal(url, self._secrets)).netloc.rpartition("@")[2]
        except (TocsinError, ValueError):
            return url  # it will fail, and say why, in a lane of its own

    def _open(self, lane: str, id: str) -> None:
        self._lanes[lane] = deque([id])
        threading.Thread(target=lambda: guarded(lambda: self._serve(lane)), name="outbox", daemon=True).start()

    def _serve(self, lane: str) -> None:
        try:
            while (id := self._next(lane)) is not None:
                self._noted(lane, id)
        finally:
            self._close(lane)

    def _next(self, lane: str) -> str | None:
        with self._lock:
            queue = self._lanes[lane]
            if queue and not self._stopped:
                return queue.popleft()
            del self._lanes[lane]
            return None

    def _close(self, lane: str) -> None:
        """Gives the free place to those that wait; what was left in the lane gets a new one."""
        with self._lock:
            left = self._lanes.pop(lane, None)
            again = [(lane, id) for id in left or ()] + list(self._waiting)
            self._waiting.clear()
            for name, id in again:
                if name in self._lanes:
                    self._lanes[name].append(id)
                elif len(self._lanes) < MAX_LANES and not self._stopped:
                    self._open(name, id)
                else:
                    self._waiting.append((name, id))
            self._lock.notify_all()

    def _noted(self, lane: str, id: str) -> None:
        """Whatever goes wrong, it is sent again, with the same id, until the ledger says how it ended."""
        try:
            message = self._ledger.message(id)
            if message is not None and message.state == "pending":
                self._attempt(message)
        except LedgerUnavailable as e:
            log.error("message %s waits: %s", id, e)
            self._timers.after(LEDGER_WAIT_S, functools.partial(self._enter, lane, id))
        except Exception:
            log.exception("message %s failed and is tried again", id)
            self._timers.after(LONGEST_WAIT_S, functools.partial(self._enter, lane, id))

    def _attempt(self, message: Message) -> None:
        begun = time.time_ns()
        delivery = Delivery(
            id=message.id,
            sender=message.sender,
            url=message.url,
            body=message.body,
            headers=message.headers,
            sign_with=message.sign_with,
        )
        try:
            bounded(lambda: self._send(delivery), time.monotonic() + SEND_TIMEOUT_S)
        except Rejected as e:
            self._end(message, "dead", str(e), begun)
        except NotYet as e:
            self._put_off(message, str(e), e.after_s or 1.0)
        except RetryLater as e:
            self._later(message, str(e), e.after_s or 0.0, begun)
        except TimeoutError:
            self._later(message, f"gave no answer within {SEND_TIMEOUT_S:g} s", 0.0, begun)
        except (TocsinError, TooManyHanging) as e:
            self._later(message, str(e), 0.0, begun)
        except Exception as e:
            log.exception("sending %s failed", message.id)
            self._later(message, type(e).__name__, 0.0, begun)
        else:
            self._end(message, "delivered", "", begun)

    def _later(self, message: Message, reason: str, after_s: float, begun_ns: int) -> None:
        attempts = message.attempts + 1
        wait_s = max(after_s, min(LONGEST_WAIT_S, message.backoff_s * message.factor ** min(attempts - 1, 30)))
        too_late = time.time_ns() + int(wait_s * 1e9) > message.give_up_ns
        if too_late or attempts >= (message.max_attempts or attempts + 1):
            self._end(message, "dead", reason, begun_ns)
            return
        log.warning("message %s to %s waits %g s: %s", message.id, message.sender, wait_s, reason)
        self._put_off(msgspec.structs.replace(message, attempts=attempts), reason, wait_s)

    def _put_off(self, message: Message, reason: str, wait_s: float) -> None:
        next_ns = time.time_ns() + int(wait_s * 1e9)
        later = msgspec.structs.replace(message, next_ns=next_ns, reason=reason[:MAX_REASON_CHARS])
        with self._ledger.writing() as tx:
            tx.put(later)
        self.posted([later])

    def _end(self, message: Message, state: str, reason: str, begun_ns: int) -> None:
        now = time.time_ns()
        ended = msgspec.structs.replace(
            message, state=state, attempts=message.attempts + 1, reason=reason[:MAX_REASON_CHARS], ended_ns=now
        )
        run = self._ledger.run(message.run_id)
        with self._ledger.writing() as tx:
            tx.put(ended)
            tx.audit(state, run=message.run_id, step=message.step_id, delivery=message.id, reason=ended.reason)
            if run:
                event = of_delivery(run, decode(run.alert), message.step_id, state == "delivered", reason, begun_ns)
                tx.respond(event)
        self._ended()
