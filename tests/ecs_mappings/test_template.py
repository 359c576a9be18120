"""The template: every field is ECS's or ours, every encoded event is covered, nothing unknown is mapped."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ecs_mappings.template
from ecs_mappings.event import Event, encode
from ecs_mappings.template import (
    LONG_IGNORE_ABOVE,
    OPTIONAL_TYPES,
    TOTAL_FIELDS_LIMIT,
    field_paths,
    field_type,
    mappings,
    split_label,
)

_FACTS = Path(ecs_mappings.template.__file__).with_name("ecs_fields.csv")
_SAME_IN_ECS = {"date_nanos": "date", "flattened": "object"}
"""Our type -> the ECS type that it is a variant of."""


def _ecs() -> dict[str, dict[str, str]]:
    with _FACTS.open() as file:
        return {row["field"]: row for row in csv.DictReader(file)}


def test_every_field_is_ecs_or_ours() -> None:
    facts = _ecs()
    wrong = []
    for path, kind in field_paths().items():
        fact = facts.get(path.removesuffix(".*"))
        if path.startswith("tocsin."):
            continue
        if fact is None:
            wrong.append(f"{path}: not in ECS")
        elif fact["type"] not in (kind.es, _SAME_IN_ECS.get(kind.es)):
            wrong.append(f"{path}: {kind.es}, in ECS {fact['type']}")
        elif (fact["normalization"] == "array") != kind.many:
            wrong.append(f"{path}: list {kind.many}, in ECS {fact['normalization'] or 'no list'}")
    assert wrong == []


def _leaves(value: Any, path: str, types: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, value) of what is no object, walked as Elasticsearch does: through lists."""
    if isinstance(value, dict) and types.get(path, {}).get("type") != "flattened":
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key, types)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path, types)
    else:
        yield path, value


def _mapped(properties: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, mapping in properties.items():
        where = f"{path}.{name}" if path else name
        if "properties" in mapping:
            found |= _mapped(mapping["properties"], where)
        else:
            found[where] = mapping
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_template_covers_every_encoded_event(any_event: st.SearchStrategy[Event], data: st.DataObject) -> None:
    mapped = _mapped(mappings()["properties"])
    event = data.draw(any_event)
    for path, value in _leaves(msgspec.json.decode(encode(event)), "", mapped):
        expected = {"boolean": bool, "long": int, "float": (int, float), "flattened": dict}.get(
            mapped[path]["type"], str
        )
        assert isinstance(value, expected), path
        if mapped[path]["type"].startswith("date"):
            datetime.fromisoformat(value)


@pytest.mark.parametrize("supported", [frozenset(), frozenset(["wildcard"]), frozenset(OPTIONAL_TYPES)])
def test_only_supported_types_are_used(supported: frozenset[str]) -> None:
    used = {mapping["type"] for mapping in _mapped(mappings(supported)["properties"]).values()}
    assert used & set(OPTIONAL_TYPES) == supported


def test_no_keyword_can_exceed_lucenes_longest_term() -> None:
    for supported in (frozenset[str](), frozenset(OPTIONAL_TYPES)):
        for path, mapping in _mapped(mappings(supported)["properties"]).items():
            if mapping["type"] in ("keyword", "flattened") and mapping.get("index", True):
                assert mapping["ignore_above"] * 4 <= 32766, path
    assert LONG_IGNORE_ABOVE * 4 <= 32766


def test_nothing_unknown_becomes_a_field() -> None:
    body = mappings()
    assert body["dynamic"] is False
    assert len(_mapped(body["properties"])) < TOTAL_FIELDS_LIMIT / 2


@pytest.mark.parametrize(
    ("path", "kind", "many"),
    [
        ("@timestamp", "date", False),
        ("process.args", "keyword", True),
        ("process.parent.command_line", "keyword", False),
        ("destination.ip", "ip", False),
        ("destination.port", "long", False),
        ("container.labels.com.example/a.b", "keyword", False),
        ("container.security_context.privileged", "boolean", False),
        ("tocsin.process.ancestors.name", "keyword", True),
        ("tocsin.latency.captured_ms", "float", False),
        ("message", "text", False),
    ],
)
def test_legal_paths(path: str, kind: str, many: bool) -> None:
    found = field_type(path)
    assert found is not None
    assert (found.kind, found.many) == (kind, many)


@pytest.mark.parametrize(
    "path",
    ["", "process", "process.nme", "container.labels", "container.labels.", "container.labels.*", ".", "event."],
)
def test_illegal_paths(path: str) -> None:
    assert field_type(path) is None


def test_label_keys_keep_their_dots() -> None:
    assert split_label("container.labels.com.example.team") == ("container.labels", "com.example.team")
    assert split_label("container.name") is None
