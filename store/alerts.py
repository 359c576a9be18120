"""Folds alert documents into groups, the same way over every store. Owns no storage."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ecs_mappings.event import AlertDetail, Event
from store.protocol import Query, Store

DATASET = "tocsin.alert"


@dataclass(frozen=True)
class AlertGroup:
    """One alert as people see it: its first firing and all its repeats."""

    id: str
    """event.id of the first firing."""
    newest: Event
    """The document that tells most: its count covers all before it."""
    count: int
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True)
class AlertPage:
    groups: list[AlertGroup]
    next: str | None
    """As of `Page`."""


def alerts(store: Store, query: Query) -> AlertPage:
    """Groups in the order of their newest document, at most `query.limit`. The query picks by that document.

    Following `next` gives each group once, except a group that fires again meanwhile: it moves to the top.
    """
    query = dataclasses.replace(query, datasets=(DATASET,))
    groups: list[AlertGroup] = []
    while True:
        page = store.search(dataclasses.replace(query, limit=query.limit - len(groups)))
        found = [(event, detail) for event in page.events if (detail := _detail(event))]
        newest = _newest(store, query, {detail.group for _, detail in found})
        groups += [_group(event, detail) for event, detail in found if newest.get(detail.group) == event.event.id]
        if page.next is None or len(groups) >= query.limit:
            return AlertPage(groups, page.next)
        query = dataclasses.replace(query, after=page.next)


def _newest(store: Store, query: Query, groups: set[str]) -> dict[str, str]:
    """Group -> id of its newest document up to `query.until`, whichever others of its documents match."""
    if not groups:
        return {}
    whole = Query(datasets=(DATASET,), until=query.until, where={"tocsin.alert.group": sorted(groups)}, limit=1000)
    newest: dict[str, str] = {}
    for event in each(store, whole):
        if detail := _detail(event):
            newest.setdefault(detail.group, event.event.id)
    return newest


def each(store: Store, query: Query) -> Iterator[Event]:
    """Every match of a query, page after page."""
    while True:
        page = store.search(query)
        yield from page.events
        if page.next is None:
            return
        query = dataclasses.replace(query, after=page.next)


def _detail(event: Event) -> AlertDetail | None:
    return (event.tocsin.alert or None) if event.tocsin else None


def _group(event: Event, detail: AlertDetail) -> AlertGroup:
    return AlertGroup(detail.group, event, detail.count, detail.first_seen, detail.last_seen)
