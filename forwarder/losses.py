"""Counts what a sink will never get, and says so: loss is data, silence is a defect."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ecs_mappings.event import Ecs, Event, EventMeta, Host, Tocsin, encode
from ecs_mappings.event import Loss as LossDetail

_RECENT = 20
_TOLD = 10_000
"""So many events_lost events are remembered, for the case that they are lost themselves."""


@dataclass(frozen=True)
class Loss:
    """Records of one topic that one sink will not get."""

    topic: str
    sink: str
    reason: str
    first: int
    end: int
    count: int | None
    """None when nobody can know."""
    start_ns: int
    """The records came between these two times (wall clock)."""
    end_ns: int

    def event(self) -> Event:
        """Its id is derived: telling the same loss twice is the same as once."""
        host = socket.gethostname()
        key = f"{host}:{self.topic}:{self.sink}:{self.first}:{self.end}:{self.start_ns}:{self.end_ns}:{self.reason}"
        what = "some records" if self.count is None else f"{self.count} records"
        return Event(
            timestamp=datetime.fromtimestamp(time.time_ns() / 1e9, UTC),
            ecs=Ecs(),
            event=EventMeta(
                id=hashlib.sha256(key.encode()).hexdigest()[:40],
                category=["host"],
                type=["info"],
                action="events_lost",
                dataset="tocsin.sensor",
                provider="forwarder",
                reason=self.reason,
                start=datetime.fromtimestamp(self.start_ns / 1e9, UTC),
                end=datetime.fromtimestamp(self.end_ns / 1e9, UTC),
            ),
            message=f"{what} of {self.topic} will not reach {self.sink}: {self.reason}",
            host=Host(name=host, hostname=host),
            tocsin=Tocsin(loss=_detail(self)),
        )


class Losses:
    """Gathers losses from all threads; `report` sends them as events, gathered per sink, topic and reason."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, str, str, bool], Loss] = {}
        self._again: dict[Loss, None] = {}
        self._recent: list[Loss] = []
        self._told: dict[int, Loss] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, loss: Loss) -> None:
        with self._lock:
            self._counts[loss.topic, loss.sink] += loss.count or 0
            self._merge(loss)

    def retell(self, lost: range) -> None:
        """Some sink will not get the records at these offsets: the losses they told of are told again, as they were.

        Not merged into new ones: a sink that did get them knows them by their ids, and must not count them twice.
        """
        with self._lock:
            for offset in [x for x in self._told if x in lost]:
                self._again[self._told.pop(offset)] = None

    def report(self, append: Callable[[Sequence[bytes]], int]) -> bool:
        """Appends an events_lost event for each loss since the last call; True if there was one.

        `append` returns the offset of the first. When it raises, the losses stay and are told by a later call.
        """
        with self._lock:
            new, self._pending = list(self._pending.values()), {}
            again, self._again = list(self._again), {}
        if not (new or again):
            return False
        try:
            offset = append([encode(loss.event()) for loss in [*again, *new]])
        except BaseException:
            with self._lock:
                self._again |= dict.fromkeys(again)
                for loss in new:
                    self._merge(loss)
            raise
        with self._lock:
            self._recent = [*self._recent, *new][-_RECENT:]
            self._told |= dict(enumerate([*again, *new], offset))
            while len(self._told) > _TOLD:
                del self._told[next(iter(self._told))]
        return True

    def count(self, topic: str, sink: str) -> int:
        """Records known to be lost since this start."""
        with self._lock:
            return self._counts[topic, sink]

    def recent(self) -> list[Loss]:
        """The newest losses, told or about to be told, oldest first."""
        with self._lock:
            return [*self._recent, *self._pending.values()][-_RECENT:]

    def _merge(self, loss: Loss) -> None:
        key = (loss.topic, loss.sink, loss.reason, loss.count is None)
        old = self._pending.get(key)
        self._pending[key] = loss if old is None else replace(
            loss,
            first=min(old.first, loss.first),
            end=max(old.end, loss.end),
            count=None if loss.count is None else loss.count + (old.count or 0),
            start_ns=min(old.start_ns, loss.start_ns),
            end_ns=max(old.end_ns, loss.end_ns),
        )  # fmt: skip


def _detail(loss: Loss) -> LossDetail:
    if loss.count is None:
        return LossDetail(stage="spool", sink=loss.sink)
    return LossDetail(stage="spool", sink=loss.sink, count=loss.count)
