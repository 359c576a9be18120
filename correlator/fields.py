"""What a rule may look at: the contract's legal field paths, and how to reach their values in an event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from ecs_mappings.event import Event
from ecs_mappings.template import field_type, split_label

Kind = Literal["text", "ip", "number", "flag", "time"]

_KINDS: dict[str, Kind] = {
    "keyword": "text", "text": "text", "ip": "ip", "long": "number", "float": "number", "boolean": "flag",
    "date": "time",
}  # fmt: skip
_ATTRIBUTES = {part.encode_name: part.name for part in msgspec.structs.fields(Event)}


@dataclass(frozen=True)
class Field:
    """One leaf of the event. `steps` are attribute names from Event down; they come from our own structs only."""

    path: str
    steps: tuple[str, ...]
    kind: Kind
    many: bool = False
    """The value is a list: a condition holds when it holds for any element."""
    objects_at: int | None = None
    """Index of the step that is a list of objects, as in tocsin.process.ancestors."""
    label: str | None = None
    """Of `container.labels.<key>`: the key, which may hold dots."""

    def values(self, event: Event) -> list[Any]:
        """The values found, in order; empty when the field is missing."""
        found: list[Any] = [event]
        for step in self.steps:
            found = [value for part in found for value in _present(getattr(part, step))]
        return found if self.label is None else [labels[self.label] for labels in found if self.label in labels]


def find(path: str) -> Field | None:
    """The field of that path, or None when no event can have it."""
    known = field_type(path)
    if known is None:
        return None
    label = split_label(path)
    first, *rest = (label[0] if label else path).split(".")
    steps = (_ATTRIBUTES[first], *rest)
    objects_at = len(known.list_path.split(".")) - 1 if known.list_path and known.list_path != path else None
    return Field(path, steps, _KINDS[known.kind], known.many, objects_at, label[1] if label else None)


def as_text(value: Any) -> str:
    """How a value that is no text is written where a rule compares it with text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _present(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is UNSET else [value]
