"""The slow, three-valued reading of a tree: for explanations, and for events with cut fields."""

from __future__ import annotations

from collections.abc import Collection

from correlator.tree import And, Const, Exists, Match, Named, Node, Not, Op, Or, Same, Text
from ecs_mappings.event import Event

Verdict = bool | None
"""None: it depends on what was cut off."""


def verdict(node: Node, event: Event, cut: Collection[str] = ()) -> Verdict:
    """True or False when the event decides it whatever the fields in `cut` held beyond what was kept, else None."""
    match node:
        case And(items=items):
            return _all([verdict(item, event, cut) for item in items])
        case Or(items=items):
            return _not(_all([_not(verdict(item, event, cut)) for item in items]))
        case Not(item=item):
            return _not(verdict(item, event, cut))
        case Named(item=item):
            return verdict(item, event, cut)
        case Const(value=value):
            return value
        case Same(field=field, other=other):
            if field.path in cut or other.path in cut:
                return None
            return any(node.holds(a, b) for a in field.values(event) for b in other.values(event))
        case Match():
            return _match(node, event, cut)


def _match(node: Match, event: Event, cut: Collection[str]) -> Verdict:
    found = node.field.values(event)
    if isinstance(node.test, Exists):
        return bool(found) is node.test.value
    holds = any(node.test.holds(value) for value in found)
    if node.field.path not in cut:
        return holds
    certain = isinstance(node.test, Text) and node.test.op in (Op.STARTS, Op.CONTAINS)
    return True if holds and certain else None


def _all(verdicts: list[Verdict]) -> Verdict:
    return False if False in verdicts else None if None in verdicts else True


def _not(value: Verdict) -> Verdict:
    return None if value is None else not value
