"""All that belongs to one alert: what set it off, its repeats, and what was done. Owns the questions to the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import UNSET

from ecs_mappings.event import AlertDetail, Event, Latency, decode
from store import Query, Store
from store.alerts import DATASET, each
from tocsin.errors import UsageError

RESPONSES = "tocsin.response"
MOST_EVENTS = 100
SEARCHED_ALERTS = 5_000
"""How many of the newest alert documents the start of an id is looked for in."""

HOPS = ("captured", "matched", "decided", "acted", "verified")


@dataclass(frozen=True)
class Story:
    """One group of alerts."""

    alert: Event
    """The first firing."""
    detail: AlertDetail
    newest: Event
    """Its count and times cover all repeats."""
    events: list[Event]
    """What completed the first firing, in order; those the store still has."""
    responses: list[Event]
    """In order of time."""
    stored_ns: int | None = None
    """When the store had taken the alert (time.time_ns); the forwarder remembers the newest few thousand."""

    def timeline(self) -> dict[str, float]:
        """Milliseconds from the kernel's time of the completing event to each hop, in order: the first that has one."""
        sources = [self.alert, *self.responses]
        found: dict[str, float] = {}
        for hop in HOPS:
            values = [getattr(latency, f"{hop}_ms") for e in sources if (latency := _latency(e)) is not None]
            known = [value for value in values if value is not UNSET]
            if known:
                found[hop] = known[0]
        if self.stored_ns is not None:
            found["stored"] = round(self.stored_ns / 1e6 - self.alert.timestamp.timestamp() * 1e3, 3)
        return dict(sorted(found.items(), key=lambda hop: hop[1]))

    def ancestors(self) -> list[str]:
        """The completing event's process and those above it, the process first."""
        event = self.events[-1] if self.events else self.alert
        chain: list[str] = []
        if event.process:
            chain.append(event.process.command_line or event.process.executable or event.process.name or "?")
        above = event.tocsin.process.ancestors if event.tocsin and event.tocsin.process else UNSET
        if above:
            return chain + [a.executable or a.name or "?" for a in above]
        parent = event.process.parent if event.process else UNSET
        return [*chain, parent.executable or parent.name or "?"] if parent else chain


def _latency(event: Event) -> Latency | None:
    return (event.tocsin.latency or None) if event.tocsin else None


def tell(store: Store, given: str, stored: Mapping[str, int] | None = None) -> Story:
    """The story of the alert with this id, or whose id begins so. UsageError when there is none, or several.

    `stored`: id of an alert -> when the store had taken it, as the forwarder's status has it.
    """
    event = _find(store, given)
    detail = _detail(event)
    if detail.group != event.event.id:
        first = store.get(detail.group)
        event = decode(first) if first is not None else event
        detail = _detail(event)
    documents = list(each(store, _of_group({"tocsin.alert.group": detail.group}, DATASET)))
    ids = [d.event.id for d in documents if _detail(d).group == detail.group]
    responses = each(store, _of_group({"tocsin.playbook.alert_id": ids or [event.event.id]}, RESPONSES))
    triggers = (store.get(event_id) for event_id in detail.events[-MOST_EVENTS:])
    return Story(
        alert=event,
        detail=detail,
        newest=max([event, *documents], key=lambda e: _detail(e).count),
        events=[decode(document) for document in triggers if document is not None],
        responses=sorted(responses, key=lambda e: e.timestamp),
        stored_ns=(stored or {}).get(event.event.id),
    )


def _of_group(where: Mapping[str, str | list[str]], dataset: str) -> Query:
    return Query(datasets=(dataset,), where=where, limit=1000)


def _find(store: Store, given: str) -> Event:
    document = store.get(given)
    if document is not None:
        event = decode(document)
        if event.event.dataset != DATASET:
            raise UsageError(f"{given}: is an event of {event.event.dataset}, not an alert")
        return event
    page = store.search(Query(datasets=(DATASET,), limit=SEARCHED_ALERTS))
    found = {_detail(e).group: e for e in page.events if _detail(e).group.startswith(given)}
    return found[one_of(found, given, "alert", "tocsin alerts list")]


def one_of(ids: Iterable[str], given: str, what: str, remedy: str) -> str:
    """The one id that begins as given; UsageError when there is none, or several."""
    found = sorted({x for x in ids if x.startswith(given)})
    if not found or not given:
        raise UsageError(f"{given!r}: there is no such {what}; see `{remedy}`")
    if len(found) > 1 and given not in found:
        raise UsageError(f"{given!r} is the start of several: {', '.join(found[:5])}; give more of the id")
    return given if given in found else found[0]


def _detail(event: Event) -> AlertDetail:
    if not event.tocsin or not event.tocsin.alert:
        raise UsageError(f"{event.event.id}: is marked as an alert but carries no tocsin.alert")
    return event.tocsin.alert
