"""Templates `{{ container.id }}` and conditions `steps.freeze.changed`: values from an alert, never code.

Jinja2's sandbox, narrowed: only names, constants, comparisons, and/or/not and a few filters; no calls, no statements,
no Python attributes. Every name is checked when the playbook is loaded. What the alert lacks is an error, not "".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ecs_mappings import template as contract
from ecs_mappings.event import Event

MAX_CHARS = 64 * 1024
"""Longest text one template may give."""

STEP_NAMES = (
    "outcome", "reason", "verified", "changed", "unchanged", "skipped", "denied", "failed", "timeout", "data",
)  # fmt: skip
PLAYBOOK_NAMES = ("name", "revision", "mode", "run_id")
ERROR_NAMES = ("step", "action", "outcome", "message")

_FILTERS = frozenset({"default", "first", "join", "last", "length", "lower", "trim", "truncate", "upper"})
_TESTS = frozenset({"defined"})
_PLAIN = (
    nodes.And, nodes.Compare, nodes.Concat, nodes.CondExpr, nodes.Const, nodes.Filter, nodes.Getattr, nodes.Getitem,
    nodes.Keyword, nodes.List, nodes.Name, nodes.Neg, nodes.Not, nodes.Operand, nodes.Or, nodes.Output,
    nodes.Template, nodes.TemplateData, nodes.Test, nodes.Tuple,
)  # fmt: skip


class ValueProblem(Exception):
    """A template or condition is wrong, or this alert cannot fill it. The message is one line for people."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Looks only into mappings and lists, so no Python attribute or method can be reached by any name."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            return obj
        if isinstance(obj, Mapping) and isinstance(argument, str) and argument in obj:
            return obj[argument]
        if isinstance(obj, list) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(name=str(argument))


_sandbox = _Sandbox(undefined=StrictUndefined, autoescape=False, cache_size=0)
_sandbox.globals.clear()


@dataclass(frozen=True)
class Scope:
    """Which names are legal at one place of a playbook, beside the fields of an event."""

    steps: tuple[str, ...] = ()
    """Steps that have ended by then."""
    later: tuple[str, ...] = ()
    """Steps that have not: only for a better message."""
    failure: bool = False
    """Inside on_failure, where `error` is what went wrong."""

    def check(self, path: str) -> None:
        """ValueProblem unless a playbook may use this name here."""
        root, *rest = path.split(".")
        if root == "steps":
            return self._check_step(rest)
        if root == "playbook":
            return _one_of(path, rest, PLAYBOOK_NAMES)
        if root == "error":
            if not self.failure:
                raise ValueProblem("'error' is what went wrong; it exists only in on_failure")
            return _one_of(path, rest, ERROR_NAMES)
        if contract.field_type(path) is None:
            raise ValueProblem(f"{path!r} is not a field of an event{_near(path, list(contract.field_paths()))}")

    def _check_step(self, rest: list[str]) -> None:
        if not rest or rest[0] not in self.steps:
            name = rest[0] if rest else ""
            if name in self.later:
                raise ValueProblem(f"the step {name!r} has not ended by then; only earlier steps can be looked at")
            raise ValueProblem(f"there is no step {name!r}{_near(name, list(self.steps))}")
        if len(rest) < 2 or rest[1] not in STEP_NAMES or (len(rest) > 2 and rest[1] != "data"):
            raise ValueProblem(f"'steps.{'.'.join(rest)}' is not legal; a step has {', '.join(STEP_NAMES)}")


def _one_of(path: str, rest: list[str], known: tuple[str, ...]) -> None:
    if len(rest) != 1 or rest[0] not in known:
        root = path.split(".")[0]
        raise ValueProblem(f"{path!r} is not legal; {root} has {', '.join(known)}")


def _near(name: str, known: list[str]) -> str:
    found = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def names_of(alert: Event) -> dict[str, Any]:
    """The fields of an alert, as templates see them."""
    names: dict[str, Any] = msgspec.to_builtins(alert, builtin_types=())
    return names


def value_at(names: Mapping[str, Any], path: str) -> Any:
    """The value of a legal path, or None when it is absent."""
    label = contract.split_label(path)
    value: Any = names
    for part in [*label[0].split("."), label[1]] if label else path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


class Condition:
    """The expression under `if`."""

    def __init__(self, source: str, scope: Scope) -> None:
        """Raises ValueProblem when it is no expression or uses an unknown name."""
        self.source = source
        try:
            body = Parser(_sandbox, source, state="variable").parse_expression()
            self._paths = _check(body, scope)
            self._evaluate = _sandbox.compile_expression(source, undefined_to_none=False)
        except TemplateError as e:
            raise ValueProblem(f"is not an expression: {e.message}") from e

    def holds(self, names: Mapping[str, Any]) -> bool:
        """ValueProblem when the alert lacks a field it needs, or the values cannot be compared."""
        try:
            return bool(self._evaluate(names))
        except (TemplateError, TypeError, ValueError, ArithmeticError) as e:
            raise ValueProblem(_why(e, self._paths, names)) from e


class Template:
    """A text with `{{ ... }}` in it. One that is nothing but a single `{{ name }}` keeps the value's type."""

    def __init__(self, source: str, scope: Scope) -> None:
        """Raises ValueProblem when it is wrong or uses an unknown name."""
        self.source = source
        try:
            tree = _sandbox.parse(source)
            self._paths = _check(tree, scope)
            self._template = _sandbox.from_string(source)
            single = re.fullmatch(r"\s*\{\{(.*)\}\}\s*", source, re.DOTALL) if _is_single(tree) else None
            self._single = _sandbox.compile_expression(single[1], undefined_to_none=False) if single else None
        except TemplateSyntaxError as e:
            raise ValueProblem(f"is not a template: {e.message}") from e

    def fill(self, names: Mapping[str, Any]) -> Any:
        """ValueProblem when the alert lacks a field it needs, or the text would be too long."""
        try:
            if self._single is not None:
                value = self._single(names)
                if isinstance(value, Undefined):
                    str(value)  # raises, with the name that is missing
                return _bounded(value)
            pieces, size = [], 0
            for piece in self._template.generate(names):
                size += len(piece)
                if size > MAX_CHARS:
                    raise ValueProblem(f"gives more than {MAX_CHARS} characters")
                pieces.append(piece)
            return "".join(pieces)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as e:
            raise ValueProblem(_why(e, self._paths, names)) from e

    def text(self, names: Mapping[str, Any]) -> str:
        """The same, as text."""
        return as_text(self.fill(names))


def as_text(value: Any) -> str:
    """A text as it is, anything else as JSON: a list must never become Python's notation."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def has_template(value: object) -> bool:
    """Whether any text inside holds `{{`, `{%` or `{#`."""
    return any("{{" in text or "{%" in text or "{#" in text for text in texts(value))


def texts(value: object) -> Iterator[str]:
    """Every text inside a value made of lists and mappings; keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def compiled(value: Any, scope: Scope) -> Any:
    """The same value with a Template in place of each text that holds one. Keys take none: ValueProblem."""
    if isinstance(value, str):
        return Template(value, scope) if has_template(value) else value
    if isinstance(value, Mapping):
        for key in value:
            if has_template(key):
                raise ValueProblem(f"the key {key!r} may not be a template")
        return {key: compiled(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [compiled(item, scope) for item in value]
    return value


def filled(value: Any, names: Mapping[str, Any]) -> Any:
    """What compiled() gave, with every Template filled in. ValueProblem as Template.fill."""
    if isinstance(value, Template):
        return value.fill(names)
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    return value


def _bounded(value: Any) -> Any:
    size = len(value) if isinstance(value, str) else len(msgspec.json.encode(value))
    if size > MAX_CHARS:
        raise ValueProblem(f"gives more than {MAX_CHARS} characters")
    return value


def _is_single(tree: nodes.Template) -> bool:
    outputs = [part for output in tree.find_all(nodes.Output) for part in output.nodes]
    return len([p for p in outputs if not (isinstance(p, nodes.TemplateData) and not p.data.strip())]) == 1


def _why(error: Exception, paths: list[str], names: Mapping[str, Any]) -> str:
    """What this alert lacks, by its full name; else the error itself."""
    absent = [path for path in paths if value_at(names, path) is None]
    if isinstance(error, UndefinedError) and absent:
        return f"{', '.join(absent)} is absent in this alert"
    return str(error)


def _check(tree: nodes.Node, scope: Scope) -> list[str]:
    """The names it uses. ValueProblem for every node kind, filter, test or name that is not allowed."""
    paths: list[str] = []
    inner = {id(n.node) for n in _all(tree) if isinstance(n, nodes.Getattr | nodes.Getitem)}
    for node in _all(tree):
        if not isinstance(node, _PLAIN):
            raise ValueProblem(f"may hold values only, no {type(node).__name__.lower()}")
        if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            raise ValueProblem(f"there is no filter {node.name!r}; there are {', '.join(sorted(_FILTERS))}")
        if isinstance(node, nodes.Test) and node.name not in _TESTS:
            raise ValueProblem(f"there is no test {node.name!r}; there is {', '.join(sorted(_TESTS))}")
        if isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem) and id(node) not in inner:
            paths.append(_path(node))
            scope.check(paths[-1])
    return paths


def _all(tree: nodes.Node) -> Iterator[nodes.Node]:
    yield tree
    yield from tree.find_all(nodes.Node)


def _path(node: nodes.Node) -> str:
    """The dotted name of a chain; an index into a list leaves no trace in it."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_path(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        base = _path(node.node)
        return base if isinstance(node.arg.value, int) else f"{base}.{node.arg.value}"
    raise ValueProblem("may look only at names such as container.id or container.labels['team']")
