"""Matching fails closed: less, or stranger, never matches more."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene import alert

from ecs_mappings.event import Container, Endpoint, Image
from playbooks.document import Match
from playbooks.match import Matcher
from playbooks.values import names_of

FULL = names_of(
    alert(
        container=Container(id="c" * 64, name="web", image=Image(name="shop:1"), labels={"team.name": "shop"}),
        destination=Endpoint(ip="203.0.113.10", port=4444),
    )
)


def matches(match: dict[str, Any], names: dict[str, Any] = FULL) -> bool:
    return Matcher(Match.model_validate(match)).matches(names)


def where(field: str, **operator: Any) -> bool:
    return matches({"where": [{"field": field, **operator}]})


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"rules": ["r-1"]}, True),
        ({"rules": ["other", "shell"]}, True),
        ({"rules": ["other"]}, False),
        ({"severity": ">=high"}, True),
        ({"severity": ">high"}, False),
        ({"severity": "<=high"}, True),
        ({"severity": "high"}, True),
        ({"severity": ["low", "high"]}, True),
        ({"severity": ["low"]}, False),
        ({"rules": ["shell"], "severity": "critical"}, False),
    ],
)
def test_rules_and_severity(match: dict[str, Any], expected: bool) -> None:
    assert matches(match) is expected


@pytest.mark.parametrize(
    ("field", "operator", "expected"),
    [
        ("container.name", {"equals": "web"}, True),
        ("container.name", {"equals": "WEB"}, False),
        ("process.pid", {"equals": 7}, True),
        ("process.pid", {"equals": "7"}, False),
        ("process.args", {"equals": "-i"}, True),
        ("process.args", {"in": ["-x", "-i"]}, True),
        ("process.args", {"not_in": ["-x"]}, True),
        ("process.args", {"not_in": ["-i"]}, False),
        ("container.name", {"not_in": ["db"]}, True),
        ("user.name", {"not_in": ["db"]}, False),
        ("container.name", {"not_in": [1]}, False),
        ("container.labels.team.name", {"equals": "shop"}, True),
        ("container.labels.team", {"exists": True}, False),
        ("container.image.name", {"startswith": "shop:"}, True),
        ("container.image.name", {"endswith": ":1"}, True),
        ("container.image.name", {"contains": "op"}, True),
        ("process.pid", {"gte": 7}, True),
        ("process.pid", {"gt": 7}, False),
        ("process.pid", {"lt": 8}, True),
        ("process.pid", {"lte": 6.5}, False),
        ("destination.ip", {"cidr": "203.0.113.0/24"}, True),
        ("destination.ip", {"cidr": ["10.0.0.0/8", "203.0.113.10/32"]}, True),
        ("destination.ip", {"not_cidr": ["10.0.0.0/8"]}, True),
        ("source.ip", {"not_cidr": ["10.0.0.0/8"]}, False),
        ("destination.port", {"exists": True}, True),
        ("source.port", {"exists": True}, False),
    ],
)
def test_operators(field: str, operator: dict[str, Any], expected: bool) -> None:
    assert where(field, **operator) is expected


def test_conditions_are_all_needed() -> None:
    both = [{"field": "process.pid", "equals": 7}, {"field": "container.name", "equals": "db"}]
    assert not matches({"where": both})


def test_an_ipv4_address_in_ipv6_clothes_is_still_inside() -> None:
    names = copy.deepcopy(FULL)
    names["destination"]["ip"] = "::ffff:203.0.113.10"
    assert matches({"where": [{"field": "destination.ip", "cidr": "203.0.113.0/24"}]}, names)
    assert not matches({"where": [{"field": "destination.ip", "not_cidr": "203.0.113.0/24"}]}, names)


FIELDS = {
    "container.name": st.sampled_from(["web", "db"]),
    "container.labels.team.name": st.sampled_from(["shop", "x"]),
    "process.args": st.sampled_from(["-i", "sh", "zz"]),
    "user.name": st.sampled_from(["root"]),
}


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from([*FIELDS, "process.pid", "destination.ip"]))
    if field == "process.pid":
        return {"field": field, draw(st.sampled_from(["gt", "gte", "lt", "lte", "equals"])): draw(st.integers(5, 9))}
    if field == "destination.ip":
        operator = draw(st.sampled_from(["cidr", "not_cidr"]))
        return {"field": field, operator: draw(st.sampled_from(["203.0.113.0/24", "10.0.0.0/8"]))}
    value = draw(FIELDS[field])
    operator = draw(st.sampled_from(["equals", "in", "not_in", "contains", "startswith", "endswith", "exists"]))
    operand: Any = (
        True if operator == "exists" else [value] if operator.endswith("in") and operator[0] in "in" else value
    )
    return {"field": field, operator: operand}


matchers = st.fixed_dictionaries(
    {"where": st.lists(conditions(), min_size=1, max_size=3)},
    optional={"severity": st.sampled_from([">=low", ">=high", "critical"]), "rules": st.just(["shell", "r-1"])},
)
odd = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.lists(st.none(), max_size=2), st.just({}), st.just([[]]),
    st.floats(allow_nan=True),
)  # fmt: skip
paths = st.sampled_from(
    [
        *[tuple(f.split(".")) for f in ("container.name", "process.args", "process.pid", "destination.ip")],
        ("container", "labels"), ("container", "labels", "team.name"), ("container",), ("process",), ("destination",),
        ("rule", "id"), ("rule", "name"), ("rule",), ("tocsin", "alert", "severity"), ("tocsin",), ("event", "action"),
        ("event",),
    ]
)  # fmt: skip


@given(matchers, st.lists(paths, min_size=1, max_size=5))
def test_removing_fields_never_makes_a_match(match: dict[str, Any], gone: list[tuple[str, ...]]) -> None:
    names = copy.deepcopy(FULL)
    for path in gone:
        parent: Any = names
        for part in path[:-1]:
            parent = parent.get(part, {})
        parent.pop(path[-1], None)
    assert matches(match) or not matches(match, names)


@given(matchers, paths, odd)
def test_odd_values_never_make_a_match_and_never_raise(
    match: dict[str, Any], path: tuple[str, ...], value: Any
) -> None:
    """Of another type than the contract's: a text where a text belongs is no odd value."""
    names = copy.deepcopy(FULL)
    parent: Any = names
    for part in path[:-1]:
        parent = parent[part]
    was = parent[path[-1]]
    parent[path[-1]] = value
    if (isinstance(value, str) and isinstance(was, str | list)) or (isinstance(value, float) and isinstance(was, int)):
        matches(match, names)
    else:
        assert matches(match) or not matches(match, names)
