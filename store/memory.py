"""A store in memory, for tests and trials: keeps the same promises as the others, until the process ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ecs_mappings.template import split_label
from store.document import read
from store.protocol import TEXT_FIELDS, Options, Outcome, Page, Query, Store, StoreStatus, Written
from store.query import Condition, Position, conditions, container, cursor, micros, moment, position
from tocsin.errors import Rejected


def open_store(url: str, options: Options) -> Store:
    """Takes no location: every `memory` is a store of its own."""
    return MemoryStore()


@dataclass(frozen=True)
class _Kept:
    position: Position
    body: bytes
    fields: dict[str, Any]


class MemoryStore:
    """Keeps the promises of `Store` in a dict."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def write(self, documents: Sequence[bytes]) -> list[Written]:
        with self._lock:
            return [self._write(document) for document in documents]

    def _write(self, document: bytes) -> Written:
        try:
            event = read(document)
        except Rejected as e:
            return Written(Outcome.REJECTED, str(e))
        event_id = event.event.id
        if event_id in self._kept:
            return Written(Outcome.EXISTS)
        at = Position(micros(event.timestamp), event_id)
        self._kept[event_id] = _Kept(at, document, msgspec.json.decode(document))
        return Written(Outcome.CREATED)

    def search(self, query: Query) -> Page:
        start = position(query)
        descending = query.order == "desc"
        matches = sorted(self._matches(query), key=_order, reverse=descending)
        if start:
            edge = (start.at, start.id.encode())
            matches = [k for k in matches if (_order(k) < edge if descending else _order(k) > edge)]
        page = matches[: query.limit]
        return Page([k.body for k in page], cursor(page[-1].position) if len(matches) > len(page) else None)

    def count(self, query: Query) -> int:
        return len(self._matches(query))

    def _matches(self, query: Query) -> list[_Kept]:
        wanted = conditions(query)
        with self._lock:
            kept = list(self._kept.values())
        return [k for k in kept if _matches(k, query) and all(_holds(k, condition) for condition in wanted)]

    def get(self, event_id: str) -> bytes | None:
        kept = self._kept.get(event_id)
        return kept.body if kept else None

    def refresh(self) -> None:
        """Nothing to do."""

    def status(self) -> StoreStatus:
        with self._lock:
            times = [k.position.at for k in self._kept.values()]
            size = sum(len(k.body) for k in self._kept.values())
        return StoreStatus(
            kind="memory",
            place="memory",
            reachable=True,
            documents=len(times),
            size_bytes=size,
            oldest=moment(min(times)) if times else None,
            newest=moment(max(times)) if times else None,
        )

    def close(self) -> None:
        """Nothing to let go of."""


def _order(kept: _Kept) -> tuple[int, bytes]:
    return kept.position.at, kept.position.id.encode()


def _matches(kept: _Kept, query: Query) -> bool:
    event = kept.fields["event"]
    if query.datasets and event["dataset"] not in query.datasets:
        return False
    if query.kinds and event.get("kind") not in query.kinds:
        return False
    if query.since and kept.position.at < micros(query.since):
        return False
    if query.until and kept.position.at >= micros(query.until):
        return False
    return _in_container(kept, query) and _has_text(kept, query)


def _in_container(kept: _Kept, query: Query) -> bool:
    wanted, found = container(query), kept.fields.get("container", {})
    if wanted is None or (wanted.name is not None and found.get("name") == wanted.name):
        return True
    found_id = str(found.get("id", ""))
    return found_id == wanted.id or (wanted.id_prefix is not None and found_id.startswith(wanted.id_prefix))


def _has_text(kept: _Kept, query: Query) -> bool:
    if query.text is None:
        return True
    wanted = query.text.encode().lower()  # bytes.lower knows ASCII only, as promised
    return any(wanted in str(v).encode().lower() for path in TEXT_FIELDS for v in _values(kept.fields, path))


def _holds(kept: _Kept, condition: Condition) -> bool:
    if condition.path == "@timestamp":
        return kept.position.at in condition.values
    wanted = condition.values
    if condition.type.kind == "date":
        wanted = tuple(msgspec.to_builtins(moment(int(value))) for value in wanted)
    return any(value in wanted for value in _values(kept.fields, condition.path))


def _values(fields: dict[str, Any], path: str) -> Iterator[Any]:
    """Every value at the path, through lists and lists of objects."""
    label = split_label(path)
    names = [*label[0].split("."), label[1]] if label else path.split(".")
    found: list[Any] = [fields]
    for name in names:
        found = [x[name] for x in found if isinstance(x, dict) and name in x]
        found = [y for x in found for y in (x if isinstance(x, list) else [x])]
    yield from found
