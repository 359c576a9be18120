"""Turns a query into SQL. Every value, and every path, is bound; only fixed text becomes SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ecs_mappings.template import split_label
from store.protocol import TEXT_FIELDS, Query
from store.query import Condition, Value, conditions, container, micros, moment, position

_COLUMNS = {
    "@timestamp": "at",
    "event.id": "id",
    "event.dataset": "dataset",
    "event.kind": "kind",
    "event.action": "action",
    "container.id": "container_id",
    "container.name": "container_name",
    "rule.id": "rule_id",
    "tocsin.alert.group": "alert_group",
}


@dataclass
class Clause:
    """The text after WHERE, and what it binds."""

    terms: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    def add(self, term: str, *values: Value) -> None:
        self.terms.append(term)
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self.terms) or "TRUE"


def where(query: Query, *, paging: bool) -> Clause:
    """The rows that match; with `paging`, only those after the query's cursor. Raises UsageError."""
    clause = Clause()
    for condition in conditions(query):
        _condition(clause, condition)
    if query.datasets:
        clause.add(f"dataset IN ({_marks(query.datasets)})", *query.datasets)
    if query.kinds:
        clause.add(f"kind IN ({_marks(query.kinds)})", *query.kinds)
    if query.since:
        clause.add("at >= ?", micros(query.since))
    if query.until:
        clause.add("at < ?", micros(query.until))
    _container(clause, query)
    if query.text is not None:
        _text(clause, query.text)
    if paging and (start := position(query)):
        clause.add(f"(at, id) {'<' if query.order == 'desc' else '>'} (?, ?)", start.at, start.id)
    return clause


def _container(clause: Clause, query: Query) -> None:
    wanted = container(query)
    if wanted is None:
        return
    choices = Clause()
    if wanted.name is not None:
        choices.add("container_name = ?", wanted.name)
    if wanted.id is not None:
        choices.add("container_id = ?", wanted.id)
    if wanted.id_prefix is not None:
        # "g" sorts right after the last hexadecimal digit.
        choices.add("container_id >= ? AND container_id < ?", wanted.id_prefix, wanted.id_prefix + "g")
    clause.add(f"({' OR '.join(choices.terms)})", *choices.values)


def _text(clause: Clause, text: str) -> None:
    lowered = text.encode().lower().decode()  # bytes.lower and SQLite's lower() know ASCII only, as promised
    tests = " OR ".join("instr(lower(json_extract(body, ?)), ?)" for _ in TEXT_FIELDS)
    clause.add(f"({tests})", *(value for path in TEXT_FIELDS for value in (_json_path(path), lowered)))


def _condition(clause: Clause, condition: Condition) -> None:
    path, values = condition.path, _stored(condition)
    marks = _marks(values)
    if column := _COLUMNS.get(path):
        clause.add(f"{column} IN ({marks})", *values)
    elif label := split_label(path):
        where_label = f"key = ? AND value IN ({marks})"
        clause.add(
            f"EXISTS (SELECT 1 FROM json_each(body, ?) WHERE {where_label})", _json_path(label[0]), label[1], *values
        )
    elif condition.type.list_path == path:
        clause.add(f"EXISTS (SELECT 1 FROM json_each(body, ?) WHERE value IN ({marks}))", _json_path(path), *values)
    elif inside := condition.type.list_path:
        member = _json_path(path.removeprefix(inside + "."))
        where_member = f"json_extract(value, ?) IN ({marks})"
        clause.add(
            f"EXISTS (SELECT 1 FROM json_each(body, ?) WHERE {where_member})", _json_path(inside), member, *values
        )
    else:
        clause.add(f"json_extract(body, ?) IN ({marks})", _json_path(path), *values)


def _stored(condition: Condition) -> Sequence[Value]:
    """The values as the documents hold them: dates are text there, except in the column `at`."""
    if condition.type.kind != "date" or condition.path in _COLUMNS:
        return condition.values
    return [msgspec.to_builtins(moment(int(value))) for value in condition.values]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _json_path(path: str) -> str:
    return "$." + ".".join(f'"{name}"' for name in path.split("."))
