"""The `detection` of one rule -> tree. Every fault gets the line of the key it stands at.

pySigma parses conditions and values. Two of its habits would silently widen a rule, so they are refused here: it drops
a selector that matches no selection, and reads a selection whose name begins with not, and or or as that operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, cast

from sigma.conditions import (
    ConditionAND,
    ConditionIdentifier,
    ConditionNOT,
    ConditionOR,
    ConditionSelector,
    SigmaCondition,
)
from sigma.exceptions import SigmaError
from sigma.modifiers import modifier_mapping
from sigma.rule.detection import SigmaDetectionItem, SigmaDetections

from correlator import fields, values
from correlator.tree import And, Const, Exists, Match, Named, Node, Not, Or, Same
from ecs_mappings.taxonomy.sigma import taxonomy
from ecs_mappings.template import field_paths
from tocsin.errors import Problem
from tocsin.strict_yaml import Mapping, Sequence

UNSUPPORTED_MODIFIERS = frozenset({"expand", "minute", "hour", "day", "week", "month", "year"})
_MISREAD = re.compile(r"(?:not|and|or)", re.IGNORECASE)


class ConditionReader:
    """Reads one document. Problems are added to `problems`; a part that has one gives None."""

    def __init__(self, file: str, ecs: bool, problems: list[Problem]) -> None:
        self._file = file
        self._ecs = ecs
        self._problems = problems

    def tree(self, detection: Mapping) -> Node | None:
        """The whole rule: its condition over its selections."""
        before = len(self._problems)
        selections = {}
        for name, definition in detection.items():
            if name != "condition":
                self._check_name(name, detection.lines[name])
                selections[name] = self._selection(definition, detection.lines[name])
        condition = detection.get("condition")
        line = detection.lines.get("condition", detection.line)
        if not isinstance(condition, str):
            self._problem(line, "the condition must be one line of text")
        elif not selections:
            self._problem(line, "the detection has no selection")
        else:
            node = self._condition(condition, line, selections)
            self._check_all_used(condition, line, detection)
            return node if len(self._problems) == before else None
        return None

    def field(self, name: str, line: int) -> fields.Field | Const | None:
        """A field by the name the rule uses: Const when it has the same value in every event, None with a problem."""
        if self._ecs:
            found = fields.find(name)
            known: Iterable[str] = field_paths()
        else:
            names = taxonomy()
            if name in names.constants:
                return Const(True, names.constants[name])
            if name in names.absent:
                return Const(False, f"{name} is never there")
            found = fields.find(names.fields[name]) if name in names.fields else None
            known = names.fields
        if found is None:
            close = get_close_matches(name, list(known), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            where = "no event has it" if self._ecs else "ecs_mappings/taxonomy/sigma.yml does not know it"
            self._problem(line, f"unknown field {name!r}: {where}{hint}")
        return found

    def _problem(self, line: int, text: str) -> None:
        self._problems.append(Problem(self._file, line, text))

    def _check_name(self, name: str, line: int) -> None:
        if _MISREAD.match(name) or name in ("them", "all", "any", "1"):
            self._problem(line, f"the selection {name!r} would be read as an operator in the condition; rename it")

    def _selection(self, definition: Any, line: int) -> Node | None:
        if isinstance(definition, Mapping) and definition:
            items = [self._item(key, value, definition.lines[key]) for key, value in definition.items()]
            return _joined(And, items)
        if isinstance(definition, Sequence) and definition and all(isinstance(x, Mapping) for x in definition):
            return _joined(Or, [self._selection(x, at) for x, at in zip(definition, definition.lines, strict=True)])
        if isinstance(definition, Mapping | Sequence) and not definition:
            self._problem(line, "the selection is empty")
        else:
            self._problem(line, "keywords (values without a field) are not supported: events have no free text")
        return None

    def _item(self, key: str, value: Any, line: int) -> Node | None:
        name, *modifiers = key.split("|")
        if not self._modifiers_fit(name, modifiers, value, line):
            return None
        field = self.field(name, line)
        if field is None:
            return None
        target = field if isinstance(field, fields.Field) else fields.Field(name, (), "text")
        try:
            item = SigmaDetectionItem.from_mapping(key, list(value) if isinstance(value, Sequence) else value)
            if item.value_linking is ConditionAND:
                node: Node = And(tuple(values.one(target, x, line) for x in item.value))
            else:
                node = values.any_of(target, item.value, line)
        except (SigmaError, ValueError, TypeError, LookupError) as e:
            self._problem(line, f"{key}: {e}")
            return None
        node = node if isinstance(field, fields.Field) else _decided(node, field)
        return Not(node) if item.negated else node

    def _modifiers_fit(self, name: str, modifiers: list[str], value: Any, line: int) -> bool:
        listed = list(value) if isinstance(value, Sequence) else [value]
        unknown = [x for x in modifiers if x not in modifier_mapping]
        if unknown:
            known = sorted(modifier_mapping.keys() - UNSUPPORTED_MODIFIERS)
            self._problem(line, f"unknown modifier |{unknown[0]}; known: {', '.join(known)}")
        elif unsupported := UNSUPPORTED_MODIFIERS.intersection(modifiers):
            self._problem(line, f"the modifier |{min(unsupported)} is not supported")
        elif not name:
            self._problem(line, "keywords (values without a field) are not supported: events have no free text")
        elif not listed or any(isinstance(x, Mapping | Sequence) for x in listed):
            self._problem(line, f"{name}: must be a value or a list of values (null for a missing field)")
        elif "" in listed and {"contains", "startswith", "endswith", "re"}.intersection(modifiers):
            self._problem(line, f"{name}: an empty text here matches everything")
        else:
            return True
        return False

    def _condition(self, text: str, line: int, selections: dict[str, Node | None]) -> Node | None:
        try:
            unasked = cast("SigmaDetections", None)  # only postprocessing looks at the detections
            parsed = SigmaCondition(text, unasked).parse(postprocess=False)
        except (SigmaError, RecursionError) as e:
            self._problem(line, f"the condition {text!r} cannot be read: {e}")
            return None
        return self._node(parsed, line, selections)

    def _node(self, parsed: Any, line: int, selections: dict[str, Node | None]) -> Node | None:
        match parsed:
            case ConditionNOT():
                item = self._node(parsed.args[0], line, selections)
                return None if item is None else Not(item)
            case ConditionAND():
                return _joined(And, [self._node(x, line, selections) for x in parsed.args])
            case ConditionOR():
                return _joined(Or, [self._node(x, line, selections) for x in parsed.args])
            case ConditionIdentifier():
                return self._named(parsed.identifier, line, selections)
            case ConditionSelector():
                names = _selected(parsed.pattern, selections)
                if not names:
                    self._problem(line, f"{parsed.args[0]} of {parsed.pattern}: no selection has such a name")
                join = And if parsed.cond_class is ConditionAND else Or
                return _joined(join, [self._named(name, line, selections) for name in names])
        self._problem(line, f"the condition has a part that is not supported: {type(parsed).__name__}")
        return None

    def _named(self, name: str, line: int, selections: dict[str, Node | None]) -> Node | None:
        if name not in selections:
            self._problem(line, f"the condition names {name!r}, but there is no such selection")
        item = selections.get(name)
        return None if item is None else Named(name, item)

    def _check_all_used(self, condition: str, line: int, detection: Mapping) -> None:
        names = [name for name in detection if name != "condition"]
        words = re.findall(r"[\w*.-]+", condition)
        used = {name for word in words for name in _selected(word, names)} | set(words)
        for name in names:
            if name not in used:
                self._problem(detection.lines[name], f"the selection {name!r} is not used by the condition")


def settled(node: Node) -> bool | None:
    """The verdict when it is the same for every event, else None."""
    match node:
        case Const(value=value):
            return value
        case Named(item=item):
            return settled(item)
        case Not(item=item):
            inner = settled(item)
            return None if inner is None else not inner
        case And(items=items) | Or(items=items):
            verdicts = {settled(item) for item in items}
            decisive = isinstance(node, Or)
            return decisive if decisive in verdicts else (not decisive if verdicts == {not decisive} else None)
    return None


def _selected(pattern: str, names: Iterable[str]) -> list[str]:
    """The selections a selector means, as Sigma has it: `them` and patterns leave out names that begin with _."""
    regex = ".*" if pattern == "them" else ".*".join(re.escape(x) for x in pattern.split("*"))
    return [x for x in names if re.fullmatch(regex, x) and (pattern.startswith("_") or not x.startswith("_"))]


def _joined(join: type[And] | type[Or], items: list[Node | None]) -> Node | None:
    present = [x for x in items if x is not None]
    if not present or len(present) < len(items):
        return None
    return present[0] if len(present) == 1 else join(tuple(present))


def _decided(node: Node, field: Const) -> Node:
    """The condition on a field that is the same in every event: `field` holds its value, or says it is absent."""
    match node:
        case And(items=items):
            return And(tuple(_decided(x, field) for x in items))
        case Or(items=items):
            return Or(tuple(_decided(x, field) for x in items))
        case Match(test=Exists(value=wanted)):
            return Const(wanted is field.value, field.why)
        case Match(test=test):
            return Const(field.value and test.holds(field.why), field.why)
        case Same():
            return Const(False, field.why)
    return node
