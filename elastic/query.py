"""Turns a query into Elasticsearch's query DSL. Only exact filters: no value is ever parsed by the cluster."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from store.protocol import TEXT_FIELDS, Query
from store.query import Condition, ContainerFilter, Value, conditions, container, micros, moment

Clause = dict[str, Any]

_SPECIAL = re.compile(r"[*?\\]")


def filters(query: Query) -> Clause:
    """The documents that match, without paging. Raises UsageError."""
    terms: list[Clause] = [_condition(condition) for condition in conditions(query)]
    if query.datasets:
        terms.append({"terms": {"event.dataset": list(query.datasets)}})
    if query.kinds:
        terms.append({"terms": {"event.kind": list(query.kinds)}})
    if query.since or query.until:
        terms.append(_time(query))
    if wanted := container(query):
        terms.append(_container(wanted))
    if query.text is not None:
        terms.append(_text(query.text))
    return {"bool": {"filter": terms}}


def _time(query: Query) -> Clause:
    span = {}
    if query.since:
        span["gte"] = _date(micros(query.since))
    if query.until:
        span["lt"] = _date(micros(query.until))
    return {"range": {"@timestamp": span}}


def _container(wanted: ContainerFilter) -> Clause:
    named: list[tuple[str, str, str | None]] = [
        ("term", "container.name", wanted.name),
        ("term", "container.id", wanted.id),
        ("prefix", "container.id", wanted.id_prefix),
    ]
    choices: list[Clause] = [{how: {path: value}} for how, path, value in named if value is not None]
    return {"bool": {"should": choices, "minimum_should_match": 1}}


def _text(text: str) -> Clause:
    part = "*" + _SPECIAL.sub(r"\\\g<0>", text) + "*"
    choices = [{"wildcard": {path: {"value": part, "case_insensitive": True}}} for path in TEXT_FIELDS]
    return {"bool": {"should": choices, "minimum_should_match": 1}}


def _condition(condition: Condition) -> Clause:
    is_date = condition.type.kind == "date"
    values: list[Value] = [_date(int(value)) if is_date else value for value in condition.values]
    return {"terms": {condition.path: values}}


def _date(since_1970_us: int) -> str:
    return str(msgspec.to_builtins(moment(since_1970_us)))
