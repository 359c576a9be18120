"""Folds firings into groups: the first opens an alert, the next ones within the span are its repeats.

Repeats are counted, and told at counts 2, 4, 8, ... and once when the group closes, so that the last count is right.
Everything here follows event time, never the wall clock: the same log gives the same alerts. A group far in the future
is over too: the clock was set back, and what happens now is no repeat of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from correlator.alerts import Firing, Standing, alert, cut, derived_id
from correlator.ruleset import RuleSet
from correlator.window import TOLERANCE_US
from ecs_mappings.event import Event, encode

MAX_GROUPS = 10_000
MAX_RECENT = 16_384
"""Ids of the latest firings: an event that is delivered twice must not count twice."""
KEPT_BYTES, KEPT_CHARS = 2048, 256
"""An open group keeps its newest event. A longer one is cut: ten thousand groups must not cost the memory, and each
snapshot the time, of ten thousand command lines that an attacker chose."""


@dataclass
class Group:
    """An open group; `last` is its newest firing, its event perhaps cut."""

    id: str
    opened_us: int
    first_us: int
    last_us: int
    count: int
    told: int
    """The count in the last document written."""
    complete: bool
    last: Firing


class GroupState(msgspec.Struct, frozen=True, array_like=True):
    """A group as it is kept in a snapshot; the rule by its name."""

    rule: str
    key: tuple[str, ...]
    id: str
    opened_us: int
    first_us: int
    last_us: int
    count: int
    told: int
    complete: bool
    event: Event
    events: tuple[str, ...]
    start_us: int
    end_us: int


class Groups:
    def __init__(self, span_s: float, clock_ns: Callable[[], int]) -> None:
        self._span_us = int(span_s * 1e6)
        self._clock_ns = clock_ns
        self._open: OrderedDict[tuple[str, tuple[str, ...]], Group] = OrderedDict()
        self._recent: OrderedDict[str, None] = OrderedDict()
        self.evicted = 0
        """Groups closed early because there were too many."""

    def __len__(self) -> int:
        return len(self._open)

    def fire(self, firing: Firing) -> list[Event]:
        """The documents this firing makes: none for one already seen, and for a repeat that is only counted."""
        firing_id = firing.id
        if firing_id in self._recent:
            return []
        self._recent[firing_id] = None
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        key = (firing.rule.name, firing.key)
        group = self._open.get(key)
        documents = []
        if group is not None and abs(firing.end_us - group.opened_us) > self._span_us:
            documents += self._close(key)
            group = None
        if group is None:
            start_us, end_us = firing.start_us, firing.end_us
            group = Group(firing_id, end_us, start_us, end_us, 1, 1, firing.complete, _kept(firing))
            self._open[key] = group
            documents.append(self._document(group, "opened", firing))
            if len(self._open) > MAX_GROUPS:
                self.evicted += 1
                documents += self._close(next(iter(self._open)))
            return documents
        group.count += 1
        group.first_us = min(group.first_us, firing.start_us)
        group.last_us = max(group.last_us, firing.end_us)
        group.complete &= firing.complete
        group.last = _kept(firing)
        if group.count & (group.count - 1) == 0:
            documents.append(self._document(group, "repeated", firing))
        return documents

    def expire(self, now_us: int) -> list[Event]:
        """Closes the groups whose span is over at that event time; their last counts, where not told yet."""
        documents: list[Event] = []
        while self._open:
            key, group = next(iter(self._open.items()))
            if abs(now_us - group.opened_us) <= self._span_us + TOLERANCE_US:
                break
            documents += self._close(key)
        return documents

    def _close(self, key: tuple[str, tuple[str, ...]]) -> list[Event]:
        group = self._open.pop(key)
        return [self._document(group, "repeated", group.last)] if group.count > group.told else []

    def _document(self, group: Group, action: str, firing: Firing) -> Event:
        group.told = group.count
        own_id = group.id if action == "opened" else derived_id("repeat", group.id, str(group.count))
        standing = Standing(own_id, action, group.id, group.count, group.first_us, group.last_us, group.complete)
        return alert(firing, standing, self._clock_ns())

    def state(self) -> tuple[list[GroupState], list[str]]:
        groups = [
            GroupState(
                name,
                key,
                g.id,
                g.opened_us,
                g.first_us,
                g.last_us,
                g.count,
                g.told,
                g.complete,
                g.last.event,
                g.last.events,
                g.last.start_us,
                g.last.end_us,
            )
            for (name, key), g in self._open.items()
        ]
        return groups, list(self._recent)

    def restore(self, groups: list[GroupState], recent: list[str], ruleset: RuleSet) -> None:
        self._recent = OrderedDict.fromkeys(recent)
        self._open = OrderedDict()
        for g in groups:
            last = Firing(ruleset.rule(g.rule), g.key, g.event, g.events, g.start_us, g.end_us, g.complete)
            self._open[g.rule, g.key] = Group(
                g.id, g.opened_us, g.first_us, g.last_us, g.count, g.told, g.complete, last
            )


def _kept(firing: Firing) -> Firing:
    if len(encode(firing.event)) <= KEPT_BYTES:
        return firing
    return replace(firing, event=cut(firing.event, KEPT_CHARS))
