"""Partial events, as people write them in a rule's `tests:` or on the command line -> events of the contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from correlator import fields
from correlator.ruleset import LogSource
from ecs_mappings.event import ECS_VERSION, Event
from ecs_mappings.template import field_paths

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP_S = 0.1
"""Between two events of a test that give no `at_s`."""

CONTAINER_ID = "5e" * 32
_CATEGORY = {"tocsin.process": "process", "tocsin.network": "network", "tocsin.file": "file"}


def event(partials: Sequence[Mapping[str, Any]], index: int, logsource: LogSource) -> Event:
    """The event that the partials describe, later ones over earlier ones, and over defaults.

    By default it has an id, a time, an action and a container. Keys may be nested or dotted; null takes a default away;
    `at_s` sets the time, in seconds since the test's start.
    Raises ValueError for a field that no event has, and for a value of the wrong type.
    """
    content = _defaults(index, logsource)
    for partial in partials:
        _lay_over(content, _nested(partial))
    at_s = content.pop("at_s", index * STEP_S)
    if not isinstance(at_s, int | float):
        raise ValueError("at_s must be a number of seconds")
    content.setdefault("@timestamp", START + timedelta(seconds=at_s))
    for path in _paths(content, ()):
        if fields.find(path) is None and not any(known.startswith(f"{path}.") for known in field_paths()):
            raise ValueError(f"unknown field {path!r}: no event has it")
    try:
        return msgspec.convert(content, Event)
    except msgspec.ValidationError as e:
        raise ValueError(str(e)) from e


def _defaults(index: int, logsource: LogSource) -> dict[str, Any]:
    return {
        "ecs": {"version": ECS_VERSION},
        "event": {
            "id": f"test-{index}",
            "dataset": logsource.dataset,
            "action": logsource.action or "test",
            "category": [_CATEGORY.get(logsource.dataset, "host")],
            "type": ["info"],
        },
        "container": {"id": CONTAINER_ID, "name": "test", "image": {"name": "test"}},
    }


def _nested(partial: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in partial.items():
        head, dot, rest = key.partition(".")
        inner = {rest: value} if dot else value
        if key.startswith("container.labels."):  # a label's key may hold dots
            inner = {"labels": {key.removeprefix("container.labels."): value}}
            _lay_over(out.setdefault(head, {}), inner)
        elif isinstance(inner, Mapping) and head != "labels":
            _lay_over(out.setdefault(head, {}), _nested(inner))
        else:
            out[head] = dict(inner) if isinstance(inner, Mapping) else inner
    return out


def _lay_over(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value


def _paths(content: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Paths of all leaves, through lists of objects."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _paths(value, (*path, key))
    elif isinstance(content, list) and any(isinstance(x, Mapping) for x in content):
        for item in content:
            yield from _paths(item, path)
    else:
        yield ".".join(path)
