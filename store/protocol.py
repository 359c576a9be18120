"""What a store promises. Owns the seam: questions, answers and the protocol. Knows no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from ecs_mappings.event import Event, decode

MAX_LIMIT = 10_000
"""Most documents of one page (Elasticsearch's own result window)."""

TEXT_FIELDS = (
    "container.image.name",
    "container.name",
    "destination.address",
    "destination.domain",
    "event.action",
    "file.path",
    "process.command_line",
    "process.executable",
    "process.name",
    "rule.id",
    "rule.name",
    "tocsin.playbook.name",
    "user.name",
)
"""Where `Query.text` looks."""


class Outcome(StrEnum):
    """What became of one written document."""

    CREATED = "created"
    EXISTS = "exists"
    """The store had this event.id already and kept what it had."""
    REJECTED = "rejected"
    """The store will never take it as it is."""


@dataclass(frozen=True, slots=True)
class Written:
    outcome: Outcome
    reason: str = ""
    """Only of a rejected document: why, for the dead-letter file."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question to a store. Every key that is set must hold; an empty one asks nothing.

    All values are plain values: nothing in them is ever read as SQL, a wildcard or a query language.
    """

    datasets: Sequence[str] = ()
    """Any of these `event.dataset`."""
    kinds: Sequence[str] = ()
    """Any of these `event.kind`."""
    since: datetime | None = None
    """`@timestamp` at or after this. Without a zone it is UTC."""
    until: datetime | None = None
    """`@timestamp` before this."""
    container: str | None = None
    """Exact name of a container, or at least 4 leading digits of its id; 64 digits are always an id."""
    text: str | None = None
    """Part of a value in any of TEXT_FIELDS, without regard to ASCII case."""
    where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """Legal field path -> the exact value, or several of which one must be there. In a list field one item suffices."""
    order: Literal["asc", "desc"] = "desc"
    """By `@timestamp`, then event.id."""
    limit: int = 100
    """Most documents of the page, 1 to MAX_LIMIT."""
    after: str | None = None
    """`Page.next` of the page before, asked with the same query."""


@dataclass(frozen=True)
class Page:
    documents: list[bytes]
    """One JSON object each, in the query's order."""
    next: str | None
    """Ask again with `after` set to this for the following page; None when there is nothing more."""

    @property
    def events(self) -> list[Event]:
        return [decode(document) for document in self.documents]


@dataclass(frozen=True, kw_only=True)
class StoreStatus:
    """How the store is. When it is not reachable, `problem` says why and the numbers are 0 and None."""

    kind: str
    """sqlite, memory or elastic."""
    place: str
    """File or URL."""
    reachable: bool
    problem: str = ""
    documents: int = 0
    size_bytes: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    version: str = ""
    features: Mapping[str, bool] = field(default_factory=dict)
    """What this store can do here, for example {"wildcard": True}."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """Documents removed by retention since the store was made, by reason: age, size."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a store may need to open. Each takes what it knows."""

    directory: Path = Path(".")
    """Where a store that keeps files puts them when its URL names none."""
    namespace: str = "default"
    """Last part of a data stream's name."""
    retain_s: float = 30 * 86_400
    """SQLite: events older than this are removed; alerts and responses live four times as long."""
    retain_bytes: int = 4096 * 1024 * 1024
    """SQLite: beyond this the oldest documents are removed, events before alerts and responses."""
    api_key: str | None = None
    user: str | None = None
    password: str | None = None
    ca_file: Path | None = None


class Store(Protocol):
    """Keeps each event exactly once. Safe to use from several threads; many may read while one writes.

    Methods that ask (`search`, `count`, `get`) raise UsageError for a query that cannot be asked (an illegal path, a
    value of the wrong type, a foreign cursor) and RetryLater when the store cannot answer now.
    """

    def write(self, documents: Sequence[bytes]) -> list[Written]:
        """Creates each encoded event unless its event.id is there; one answer per document, in order.

        A repeat is EXISTS and changes nothing, within a batch too. A document that is no legal event, too long, or
        refused by the store is REJECTED alone. Raises RetryLater when the fate of any document is open (the store is
        away, busy, or full): what was taken by then stays, and writing the same batch again is harmless. What was
        answered survives kill -9 of the writer.
        """
        ...

    def search(self, query: Query) -> Page:
        """One page. Following `next` gives each match that was there at the start exactly once.

        What was written is found within about a second, at once after `refresh`.
        """
        ...

    def count(self, query: Query) -> int:
        """How many documents match; `limit` and `after` do not matter."""
        ...

    def get(self, event_id: str) -> bytes | None:
        """The document with this event.id, or None; visible as for `search`."""
        ...

    def refresh(self) -> None:
        """Makes everything written so far visible to `search`. Costly: for a demo and for tests."""
        ...

    def status(self) -> StoreStatus:
        """Never raises: an unreachable store is an answer."""
        ...

    def close(self) -> None:
        """Lets go of files and connections. May be called twice."""
        ...
