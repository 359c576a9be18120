"""Whether a playbook answers an alert. Pure, and fails closed: what is missing, odd or of another type never matches.

So an alert with a field less, or a stranger one, is answered by the same playbooks or by fewer.
"""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Callable, Mapping
from typing import Any

from playbooks.document import Match, Where, levels
from playbooks.values import value_at

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NetworkRange = ipaddress.IPv4Network | ipaddress.IPv6Network

RULE_NAMES = ("rule.id", "rule.name", "rule.uuid")
"""Fields by which a playbook may name a rule; `rule.id` is the stem of the rule's file."""


class Matcher:
    """One playbook's `match`, compiled."""

    def __init__(self, match: Match) -> None:
        self._rules = None if match.rules is None else frozenset(match.rules)
        self._levels = _levels(match.severity)
        self._where = [(w.field, condition(w)) for w in match.where or []]

    def matches(self, alert: Mapping[str, Any]) -> bool:
        """`alert`: values.names_of() of an alert. Only one that was `opened` matches: repeats start nothing."""
        if value_at(alert, "event.kind") != "alert" or value_at(alert, "event.action") != "opened":
            return False
        if self._rules is not None and not any(_among(value_at(alert, path), self._rules) for path in RULE_NAMES):
            return False
        if self._levels is not None and not _among(value_at(alert, "tocsin.alert.severity"), self._levels):
            return False
        return all(holds(value_at(alert, field)) for field, holds in self._where)


def condition(where: Where) -> Callable[[Any], bool]:
    """The condition as a function of the field's value (None: missing).

    Of a field with several values one that fits is enough; for `not_in` and `not_cidr` all must fit, and there must be
    one at least.
    """
    name, operand = where.operator
    one = _OPERATORS[name](operand)
    every = name.startswith("not_")

    def holds(value: Any) -> bool:
        values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
        return bool(values) and (all if every else any)(one(v) for v in values)

    return holds


def _levels(severity: str | list[Any] | None) -> frozenset[str] | None:
    if severity is None:
        return None
    return levels(severity) if isinstance(severity, str) else frozenset(s.value for s in severity)


def _among(value: Any, allowed: frozenset[str]) -> bool:
    return isinstance(value, str) and value in allowed


def _alike(a: Any, b: Any) -> bool:
    """Of one kind: 1 is neither True nor "1"."""
    numbers = [isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b)]
    return all(numbers) or type(a) is type(b)


def _same(a: Any, b: Any) -> bool:
    return _alike(a, b) and bool(a == b)


def _text(test: Callable[[str, str], bool]) -> Callable[[str], Callable[[Any], bool]]:
    return lambda operand: lambda value: isinstance(value, str) and test(value, operand)


def _number(test: Callable[[float, float], bool]) -> Callable[[float], Callable[[Any], bool]]:
    def make(operand: float) -> Callable[[Any], bool]:
        return lambda v: isinstance(v, int | float) and not isinstance(v, bool) and test(v, operand)

    return make


def networks(operand: str | list[str]) -> list[NetworkRange]:
    """ValueError when one is no network such as 10.0.0.0/8."""
    return [ipaddress.ip_network(text) for text in ([operand] if isinstance(operand, str) else operand)]


def _address(value: Any) -> Address | None:
    """An IPv4 address written as IPv6 (::ffff:10.0.0.1) is the IPv4 address."""
    try:
        found = ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _inside(operand: str | list[str]) -> Callable[[Any], bool]:
    ranges = networks(operand)
    return lambda value: (address := _address(value)) is not None and any(address in r for r in ranges)


def _outside(operand: str | list[str]) -> Callable[[Any], bool]:
    ranges = networks(operand)
    return lambda value: (address := _address(value)) is not None and not any(address in r for r in ranges)


_OPERATORS: Mapping[str, Callable[[Any], Callable[[Any], bool]]] = {
    "equals": lambda operand: lambda value: _same(value, operand),
    "in_": lambda operand: lambda value: any(_same(value, o) for o in operand),
    "not_in": lambda operand: lambda value: all(_alike(value, o) and value != o for o in operand),
    "contains": _text(operator.contains),
    "startswith": _text(str.startswith),
    "endswith": _text(str.endswith),
    "cidr": _inside,
    "not_cidr": _outside,
    "exists": lambda _: lambda value: True,
    "gt": _number(operator.gt),
    "gte": _number(operator.ge),
    "lt": _number(operator.lt),
    "lte": _number(operator.le),
}
