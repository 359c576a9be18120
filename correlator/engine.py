"""The engine: a deterministic state machine over the log of events. Pure: no files, no network, no threads.

The same records in the same order give the same alerts (ids and content, but for `matched_ms`), however they are
batched and wherever a snapshot was taken and restored between them.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from correlator.alerts import Firing, when
from correlator.compile import Matcher
from correlator.fields import as_text
from correlator.groups import Groups, GroupState
from correlator.losses import Losses
from correlator.ruleset import Rule, RuleSet
from correlator.tree import fields_of
from correlator.verdict import verdict
from correlator.window import MAX_STEP_BACK_US, Entry, Key, Windows
from ecs_mappings.event import MAX_DOCUMENT_BYTES, Event, decode

log = logging.getLogger(__name__)

MAX_KEY_CHARS = 256
"""Of one value a rule groups or counts by; a longer one is cut and told apart by a hash."""


class _State(msgspec.Struct, frozen=True):
    """What a snapshot holds."""

    digest: str
    group_span_s: float
    next_offset: int
    now_us: int
    windows: dict[str, list[tuple[Key, list[Entry]]]]
    groups: list[GroupState]
    recent: list[str]
    losses: list[tuple[int, int]]
    counts: dict[str, int]
    pending: list[Event]


class Engine:
    """Feed it the log; it returns alerts. `next_offset` is the first record it has not seen; None before any."""

    def __init__(
        self, ruleset: RuleSet, group_span_s: float = 600.0, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.ruleset = ruleset
        self.next_offset: int | None = None
        self.counts: Counter[str] = Counter()
        self.fired: dict[str, Counter[str]] = {rule.name: Counter() for rule in ruleset.rules}
        self.matched_ms: deque[float] = deque(maxlen=1000)
        self._group_span_s = group_span_s
        self._matcher = Matcher(ruleset.rules)
        self._correlations: dict[str, list[Rule]] = defaultdict(list)
        for rule in ruleset.rules:
            for base in rule.window.bases if rule.window else ():
                self._correlations[base].append(rule)
        self.windows = {rule.name: Windows(rule.window) for rule in ruleset.rules if rule.window}
        self.groups = Groups(group_span_s, clock_ns)
        self._reads = {rule.name: self._fields_read(rule) for rule in ruleset.rules}
        self._losses = Losses()
        self._now_us = 0

    def feed(self, offset: int, lines: Sequence[bytes]) -> list[Event]:
        """The alerts of the records `offset`, `offset + 1`, ...; those below `next_offset` are skipped.

        Records between `next_offset` and `offset` count as lost. A line that is no event is counted and logged.
        """
        expected = offset if self.next_offset is None else self.next_offset
        gap = max(0, offset - expected)
        if gap:
            self.counts["missing"] += gap
            log.warning("%d records are gone from the log before offset %d", gap, offset)
        skipped = max(0, expected - offset)
        self.counts["skipped"] += min(skipped, len(lines))
        out: list[Event] = []
        for line in lines[skipped:]:
            before_us = self._now_us
            event = self._decoded(line)
            if event is None:
                continue
            if gap:
                self._losses.add(before_us or _micros(event.timestamp), _micros(event.timestamp))
                gap = 0
            out += self._judged(event)
        self.next_offset = max(expected, offset + len(lines))
        for event in out:
            if event.tocsin and event.tocsin.latency and isinstance(event.tocsin.latency.matched_ms, float):
                self.matched_ms.append(event.tocsin.latency.matched_ms)
        return out

    def restart_log(self, offset: int) -> None:
        """The log began anew, or lost its end: goes on at an offset that was thought to be past."""
        self.counts["restarted"] += 1
        self._losses.add(self._now_us, self._now_us)
        self.next_offset = offset

    def _decoded(self, line: bytes) -> Event | None:
        try:
            if len(line) > MAX_DOCUMENT_BYTES:
                raise msgspec.ValidationError(f"{len(line)} bytes long")
            event = decode(line)
            if event.timestamp.tzinfo is None:
                raise msgspec.ValidationError("@timestamp without time zone")
            return event
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            self.counts["malformed"] += 1
            log.warning("a line is no event and was passed over: %s", str(e)[:200])
            return None

    def _judged(self, event: Event) -> list[Event]:
        """Moves time on, then asks the rules."""
        self.counts["events"] += 1
        at_us = _micros(event.timestamp)
        if at_us > self._now_us or at_us < self._now_us - MAX_STEP_BACK_US:
            self._now_us = at_us
        out = self.groups.expire(self._now_us) if len(self.groups) else []
        if event.event.dataset == "tocsin.sensor" and event.event.action == "events_lost":
            start, end = event.event.start or event.timestamp, event.event.end or event.timestamp
            self._losses.add(_micros(start), _micros(end))
        try:
            hits = self._matcher.match(event)
            if event.tocsin and event.tocsin.truncated:
                self._count_undecided(event, hits)
            for rule in hits:
                out += self._matched(rule, event, at_us)
        except Exception:
            # One event that trips the engine must not stop all others from being judged.
            self.counts["failed"] += 1
            log.exception("the event %s could not be judged", event.event.id)
        return out

    def _matched(self, rule: Rule, event: Event, at_us: int) -> list[Event]:
        self.fired[rule.name]["matches"] += 1
        out: list[Event] = []
        if rule.alerts:
            out += self._fire(rule, event, (event.event.id,), at_us, at_us)
        for correlation in self._correlations.get(rule.name, ()):
            window = correlation.window
            assert window is not None
            value = _value(window.field, event) if window.field else None
            if window.field and not value:
                continue
            key = _key(correlation, event)
            evidence = self.windows[correlation.name].add(key, at_us, event.event.id, value)
            if evidence is not None:
                self.fired[correlation.name]["matches"] += 1
                out += self._fire(correlation, event, tuple(evidence.events), evidence.start_us, evidence.end_us)
        return out

    def _fire(self, rule: Rule, event: Event, ids: tuple[str, ...], start_us: int, end_us: int) -> list[Event]:
        cut = event.tocsin.truncated if event.tocsin and event.tocsin.truncated else ()
        complete = not self._losses.overlap(start_us, end_us) and self._reads[rule.name].isdisjoint(cut)
        firing = Firing(rule, _key(rule, event), event, ids[-100:], start_us, end_us, complete)
        documents = self.groups.fire(firing)
        for document in documents:
            self.fired[rule.name][document.event.action] += 1
        return documents

    def _count_undecided(self, event: Event, hits: Sequence[Rule]) -> None:
        """Counts the rules that a cut field kept from deciding; the rule evidence-cut makes such an event an alert."""
        assert event.tocsin and event.tocsin.truncated
        cut = frozenset(event.tocsin.truncated)
        for rule in self._matcher.asked(event):
            undecided = rule.tree and rule not in hits and not self._reads[rule.name].isdisjoint(cut)
            if undecided and rule.tree and verdict(rule.tree, event, cut) is None:
                self.fired[rule.name]["undecided"] += 1

    def _fields_read(self, rule: Rule) -> frozenset[str]:
        trees = [rule.tree] if rule.tree else []
        if rule.window:
            trees = [base.tree for name in rule.window.bases if (base := self.ruleset.rule(name)).tree]
        grouped = {field.path for field in rule.group_by}
        counted = {rule.window.field.path} if rule.window and rule.window.field else set()
        return frozenset({field.path for tree in trees if tree for field in fields_of(tree)} | grouped | counted)

    def snapshot(self, pending: Iterable[Event] = ()) -> bytes:
        """The whole state, with the alerts that nobody has taken yet. `restored` gives it back."""
        groups, recent = self.groups.state()
        state = _State(
            digest=self.ruleset.digest,
            group_span_s=self._group_span_s,
            next_offset=self.next_offset or 0,
            now_us=self._now_us,
            windows={name: windows.state() for name, windows in self.windows.items()},
            groups=groups,
            recent=recent,
            losses=self._losses.spans,
            counts=dict(self.counts),
            pending=list(pending),
        )
        body = msgspec.msgpack.encode(state)
        return hashlib.sha256(body).digest() + body

    def restore(self, data: bytes) -> list[Event]:
        """Takes the state of a snapshot and returns its pending alerts.

        Of one that was taken with other rules only what has been told already is taken, and `next_offset` stays None:
        the log must be judged again, but what was a repeat then must not open an alert, and start playbooks, now.
        Raises ValueError, and changes nothing, when the snapshot is damaged.
        """
        body = data[32:]
        if hashlib.sha256(body).digest() != data[:32]:
            raise ValueError("the snapshot is damaged")
        try:
            state = msgspec.msgpack.decode(body, type=_State)
        except (msgspec.DecodeError, ValueError) as e:
            raise ValueError(f"the snapshot is of another version: {e}") from e
        if (state.digest, state.group_span_s) != (self.ruleset.digest, self._group_span_s):
            known = {rule.name for rule in self.ruleset.rules}
            self.groups.restore([g for g in state.groups if g.rule in known], state.recent, self.ruleset)
            return state.pending
        self.next_offset = state.next_offset
        self._now_us = state.now_us
        for name, windows in state.windows.items():
            self.windows[name].restore(windows)
        self.groups.restore(state.groups, state.recent, self.ruleset)
        self._losses.spans = state.losses
        self.counts = Counter(state.counts)
        return state.pending

    def status(self) -> dict[str, Any]:
        """Counters for people and machines, since the state began (rules: since this process began)."""
        return {
            "next_offset": self.next_offset,
            "event_time": when(self._now_us).isoformat() if self._now_us else None,
            **{name: self.counts[name] for name in ("events", "skipped", "malformed", "missing", "failed")},
            "open_groups": len(self.groups),
            "evicted": self.groups.evicted + sum(w.evicted for w in self.windows.values()),
            "late": sum(w.late for w in self.windows.values()),
            "loss_spans": len(self._losses.spans),
            "rules": {name: dict(counts) for name, counts in self.fired.items() if counts},
        }


def _key(rule: Rule, event: Event) -> tuple[str, ...]:
    return tuple(_value(field, event) for field in rule.group_by)


def _value(field: Any, event: Event) -> str:
    """The field's value as a bounded text; empty when it is missing."""
    found = field.values(event)
    text = as_text(found[0]) if found else ""
    if len(text) <= MAX_KEY_CHARS:
        return text
    return text[: MAX_KEY_CHARS - 17] + "#" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1e6)
