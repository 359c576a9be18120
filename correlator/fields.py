"""What a rule may look at: legal field paths of the contract, and how to reach their values in an event.

Owns nothing of the event itself: everything is derived from `ecs_mappings.event`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from msgspec import UNSET, UnsetType
from msgspec import inspect as types

from ecs_mappings.event import Event

Kind = Literal["text", "ip", "number", "flag", "time", "labels"]


@dataclass(frozen=True)
class Field:
    """One leaf of the event. `steps` are attribute names from Event down; they come from our own structs only."""

    path: str
    steps: tuple[str, ...]
    kind: Kind
    many: bool = False
    """The value is a list: a condition holds when it holds for any element."""
    objects_at: int | None = None
    """Index of the step that is a list of objects (tocsin.process.ancestors)."""
    label: str | None = None
    """Of `container.labels.<key>`: the key, which may hold dots."""

    def values(self, event: Event) -> list[Any]:
        """The values found, in order; empty when the field is missing."""
        found: list[Any] = [event]
        for step in self.steps:
            found = list(_flat(getattr(x, step) for x in found))
        if self.label is not None:
            found = [x[self.label] for x in found if self.label in x]
        return found


def _flat(values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        elif value is not UNSET:
            yield value


@functools.cache
def paths() -> dict[str, Field]:
    """Every legal path of the contract."""
    info = types.type_info(Event)
    assert isinstance(info, types.StructType)
    return {field.path: field for field in _walk(info, (), (), None)}


def find(path: str) -> Field | None:
    """The field of that path, or None when the contract has no such field."""
    field = paths().get(path)
    if field is None and path.startswith("container.labels."):
        labels = paths()["container.labels"]
        return Field(path, labels.steps, "text", label=path.removeprefix("container.labels."))
    return field


def as_text(value: Any) -> str:
    """How a value that is no text is written where a rule compares it with text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _walk(
    struct: types.StructType, names: tuple[str, ...], steps: tuple[str, ...], objects_at: int | None
) -> Iterator[Field]:
    for part in struct.fields:
        kind, many, inner = _leaf(part.type)
        here, reach = (*names, part.encode_name), (*steps, part.name)
        if inner is not None:
            yield from _walk(inner, here, reach, len(steps) if many else objects_at)
        elif kind is not None:
            yield Field(".".join(here), reach, kind, many or objects_at is not None, objects_at)


def _leaf(type_: types.Type, es: str | None = None) -> tuple[Kind | None, bool, types.StructType | None]:
    """(kind, is a list, struct to walk into) of a type of the contract."""
    match type_:
        case types.Metadata(type=inner, extra=extra):
            return _leaf(inner, (extra or {}).get("es", es))
        case types.UnionType(types=members):
            (present,) = [t for t in members if not (isinstance(t, types.CustomType) and t.cls is UnsetType)]
            return _leaf(present, es)
        case types.ListType(item_type=item):
            kind, _, inner_struct = _leaf(item, es)
            return kind, True, inner_struct
        case types.StructType():
            return None, False, type_
        case types.StrType():
            return ("ip" if es == "ip" else "text"), False, None
        case types.BoolType():
            return "flag", False, None
        case types.IntType() | types.FloatType():
            return "number", False, None
        case types.DateTimeType():
            return "time", False, None
        case types.DictType():
            return "labels", False, None
        case _:
            raise TypeError(f"the contract has a type that rules cannot read: {type_}")


