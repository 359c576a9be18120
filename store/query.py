"""Reads a query once for all stores: checks it, types its values, writes and reads cursors. Asks no store."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from ecs_mappings.template import FieldType, field_type
from store.protocol import MAX_LIMIT, Query
from tocsin.errors import UsageError

Value = str | int | float | bool

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CONTAINER_ID = re.compile(r"[0-9a-f]{4,64}")
_ID_DIGITS = 64
_MAX_TEXT = 1024


@dataclass(frozen=True)
class Position:
    """The place of one document in the order: keyset paging goes on from here, whatever was written since."""

    at: int
    """`@timestamp` in the store's own unit."""
    id: str


@dataclass(frozen=True)
class Condition:
    """The field holds one of `values`, which have the field's own type (dates are microseconds since 1970)."""

    path: str
    type: FieldType
    values: tuple[Value, ...]


def micros(moment: datetime) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def moment(since_1970_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=since_1970_us)


def cursor(position: Position) -> str:
    """The position as text that survives a URL and a shell."""
    return base64.urlsafe_b64encode(msgspec.json.encode([position.at, position.id])).decode()


def position(query: Query) -> Position | None:
    """Where the query goes on, or None at its start. Raises UsageError for text that is no cursor."""
    if query.after is None:
        return None
    try:
        at, event_id = msgspec.json.decode(base64.urlsafe_b64decode(query.after), type=tuple[int, str])
    except (ValueError, binascii.Error, msgspec.MsgspecError) as e:
        raise UsageError(f"{query.after[:80]!r} is not a cursor: use `next` of the page before") from e
    return Position(at, event_id)


@dataclass(frozen=True)
class ContainerFilter:
    """How the query's container may be named; of several, one suffices."""

    name: str | None = None
    id: str | None = None
    id_prefix: str | None = None


def container(query: Query) -> ContainerFilter | None:
    """None when the query does not ask for a container."""
    if query.container is None:
        return None
    if not _CONTAINER_ID.fullmatch(query.container):
        return ContainerFilter(name=query.container)
    if len(query.container) == _ID_DIGITS:
        return ContainerFilter(id=query.container)
    return ContainerFilter(name=query.container, id_prefix=query.container)


def conditions(query: Query) -> list[Condition]:
    """The query's `where`, typed. Also checks everything else a store relies on; raises UsageError."""
    if not 1 <= query.limit <= MAX_LIMIT:
        raise UsageError(f"limit must be 1 to {MAX_LIMIT}, not {query.limit}")
    if query.text is not None and not 0 < len(query.text) <= _MAX_TEXT:
        raise UsageError(f"text must have 1 to {_MAX_TEXT} characters")
    return [_condition(path, wanted) for path, wanted in query.where.items()]


def _condition(path: str, wanted: str | Sequence[str]) -> Condition:
    kind = field_type(path)
    if kind is None:
        raise UsageError(f"no event has a field {path!r}; docs/events.md lists them")
    if kind.kind not in _READERS or not kind.indexed:
        raise UsageError(f"the field {path!r} holds free text and cannot be compared")
    texts = [wanted] if isinstance(wanted, str) else wanted
    try:
        return Condition(path, kind, tuple(_READERS[kind.kind](text) for text in texts))
    except ValueError as e:
        raise UsageError(f"{path}: {e}") from e


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _long(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{text!r} does not fit in 64 bits")
    return value


_READERS: dict[str, Callable[[str], Value]] = {
    "keyword": str,
    "ip": lambda text: str(ipaddress.ip_address(text)),
    "long": _long,
    "float": float,
    "boolean": _boolean,
    "date": lambda text: micros(datetime.fromisoformat(text)),
}
