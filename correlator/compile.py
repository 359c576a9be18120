"""Rules' trees -> one generated Python function per kind of event.

Safe to exec: the source is made of our own words, numbered variables and attribute names of the contract. Every text,
number and network of a rule is bound as a constant in the function's namespace, never written into the source.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import re2
from msgspec import UNSET

from correlator.fields import Field, as_text
from correlator.ruleset import Rule
from correlator.tree import (
    And,
    Compare,
    Const,
    Exists,
    Flag,
    Match,
    Named,
    Networks,
    Node,
    Not,
    Numbers,
    Op,
    Or,
    Regex,
    Same,
    Text,
)
from ecs_mappings.event import Event

MAX_PATTERN_BYTES = 64 << 20
"""Of the automaton for all patterns on one field. RE2 starts it anew when full: it only has to be large enough."""

Function = Callable[[Event], list[Rule]]


@dataclass(frozen=True)
class Bucket:
    """The rules that are asked about one kind of event, and the function that asks them all."""

    rules: tuple[Rule, ...]
    match: Function


class Matcher:
    """Says which rules an event matches, asking only those for its dataset and action."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        asked = [rule for rule in rules if rule.logsource is not None and rule.tree is not None]
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._datasets: dict[str, Bucket] = {}
        sources = {rule.logsource for rule in asked if rule.logsource}
        for dataset in {source.dataset for source in sources}:
            here = [rule for rule in asked if rule.logsource and rule.logsource.dataset == dataset]
            self._datasets[dataset] = _bucket(rule for rule in here if rule.logsource and not rule.logsource.action)
            for action in {source.action for source in sources if source.dataset == dataset and source.action}:
                fits = (rule for rule in here if rule.logsource and rule.logsource.action in (action, None))
                self._buckets[dataset, action] = _bucket(fits)

    def match(self, event: Event) -> list[Rule]:
        """The rules that match, in the order they were given."""
        bucket = self._bucket_of(event)
        return bucket.match(event) if bucket is not None else []

    def asked(self, event: Event) -> tuple[Rule, ...]:
        """The rules whose conditions the event was held against."""
        bucket = self._bucket_of(event)
        return bucket.rules if bucket is not None else ()

    def _bucket_of(self, event: Event) -> Bucket | None:
        meta = event.event
        return self._buckets.get((meta.dataset, meta.action)) or self._datasets.get(meta.dataset)


def _bucket(rules: Iterable[Rule]) -> Bucket:
    chosen = tuple(rules)
    return Bucket(chosen, compiled(chosen))


def compiled(rules: Sequence[Rule]) -> Function:
    """One function that looks each field up once, however many rules ask for it."""
    writer = _Writer()
    tests = [(writer.constant(rule), writer.node(rule.tree)) for rule in rules if rule.tree is not None]
    writer.finish()
    source = "\n    ".join(
        ["def bucket(e):", "hits = []", *writer.lines, *(f"if {test}: hits.append({rule})" for rule, test in tests)]
    )
    namespace: dict[str, Any] = {**writer.constants, "UNSET": UNSET, "as_text": as_text, "address": _address}
    exec(compile(source + "\n    return hits\n", "<rules>", "exec"), namespace)
    function: Function = namespace["bucket"]
    return function


class _Writer:
    """Collects the lines that fetch fields, and the constants, while it turns nodes into expressions."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._variables: dict[Any, str] = {}
        self._patterns: dict[str, list[str]] = {}

    def finish(self) -> None:
        """To be called after the last node: binds what had to wait until all patterns of a field were known."""
        for name, patterns in self._patterns.items():
            self.constants[name] = _searcher(patterns)

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def node(self, node: Node) -> str:
        match node:
            case And(items=items):
                return "(" + " and ".join(self.node(x) for x in items) + ")"
            case Or(items=items):
                return "(" + " or ".join(self.node(x) for x in items) + ")"
            case Not(item=item):
                return f"(not {self.node(item)})"
            case Named(item=item):
                return self.node(item)
            case Const(value=value):
                return "True" if value else "False"
            case Same(field=field, other=other):
                a, b = self._raw(field), self._raw(other)
                return f"({a} is not None and {b} is not None and {self.constant(node.holds)}({a}, {b}))"
            case Match():
                return self._match(node.field, node.test)

    def _match(self, field: Field, test: Any) -> str:
        match test:
            case Exists(value=wanted):
                there = f"bool({self._raw(field)})" if field.many else f"({self._raw(field)} is not None)"
                return there if wanted else f"(not {there})"
            case Text() if field.kind in ("text", "ip"):
                variable = self._raw(field) if test.cased else self._lower(field)
                return self._text_many(test, variable) if field.many else self._text(test, variable)
            case Numbers(values=values) if not field.many:
                return f"({self._raw(field)} in {self.constant(frozenset(values))})"
            case Compare(op=op, number=number) if not field.many and op in ("<", "<=", ">", ">="):
                variable = self._raw(field)
                return f"({variable} is not None and {variable} {op} {self.constant(number)})"
            case Flag(value=value) if not field.many:
                return f"({self._raw(field)} is {value is True})"
            case Regex(pattern=pattern) if not field.many and field.kind == "text":
                return self._pattern(field, pattern)
            case Networks(networks=networks) if not field.many:
                ranges = sorted((n.version, int(n.network_address), int(n.broadcast_address)) for n in networks)
                return self._present(self._address(field), self.constant(partial(_inside, tuple(ranges))))
        holds = self.constant(test.holds)
        variable = self._raw(field)
        return f"any(map({holds}, {variable}))" if field.many else self._present(variable, holds)

    @staticmethod
    def _present(variable: str, function: str) -> str:
        return f"({variable} is not None and {function}({variable}))"

    def _text(self, test: Text, variable: str) -> str:
        match test.op:
            case Op.EQUALS:
                return f"({variable} in {self.constant(frozenset(test.values))})"
            case Op.STARTS:
                return f"({variable} is not None and {variable}.startswith({self.constant(test.values)}))"
            case Op.ENDS:
                return f"({variable} is not None and {variable}.endswith({self.constant(test.values)}))"
            case Op.CONTAINS:
                parts = " or ".join(f"{self.constant(value)} in {variable}" for value in test.values)
                return f"({variable} is not None and ({parts}))"

    def _text_many(self, test: Text, variable: str) -> str:
        match test.op:
            case Op.EQUALS:
                return f"(not {self.constant(frozenset(test.values))}.isdisjoint({variable}))"
            case Op.STARTS:
                return f"any([x.startswith({self.constant(test.values)}) for x in {variable}])"
            case Op.ENDS:
                return f"any([x.endswith({self.constant(test.values)}) for x in {variable}])"
            case Op.CONTAINS:
                return f"any([y in x for x in {variable} for y in {self.constant(test.values)}])"

    def _raw(self, field: Field) -> str:
        """Variable with the value, or None; of a list field a list, empty when missing."""
        if ("raw", field.path) not in self._variables:
            variable = self._new("raw", field.path)
            self.lines.append(f"{variable} = {self._fetch(field)}")
        return self._variables["raw", field.path]

    def _lower(self, field: Field) -> str:
        if ("lower", field.path) not in self._variables:
            raw, variable = self._raw(field), self._new("lower", field.path)
            one = f"None if {raw} is None else {raw}.lower()"
            self.lines.append(f"{variable} = " + (f"[x.lower() for x in {raw}]" if field.many else one))
        return self._variables["lower", field.path]

    def _address(self, field: Field) -> str:
        if ("address", field.path) not in self._variables:
            raw, variable = self._raw(field), self._new("address", field.path)
            self.lines.append(f"{variable} = None if {raw} is None else address({raw})")
        return self._variables["address", field.path]

    def _pattern(self, field: Field, pattern: str) -> str:
        """All patterns on one field are searched for at once: much cheaper than one by one."""
        if ("patterns", field.path) not in self._variables:
            raw, variable = self._raw(field), self._new("patterns", field.path)
            search = f"p{len(self._patterns)}"
            self._patterns[search] = []
            self._variables["search", field.path] = search
            self.lines.append(f"{variable} = () if {raw} is None else {search}({raw})")
        patterns = self._patterns[self._variables["search", field.path]]
        patterns.append(pattern)
        return f"({len(patterns) - 1} in {self._variables['patterns', field.path]})"

    def _fetch(self, field: Field) -> str:
        if field.objects_at is not None:
            objects = self._object(field.steps[: field.objects_at + 1])
            (leaf,) = field.steps[field.objects_at + 1 :]
            return f"() if {objects} is UNSET else [y for x in {objects} if (y := x.{_word(leaf)}) is not UNSET]"
        if field.label is not None:
            labels = self._object(field.steps)
            return f"None if {labels} is UNSET else {labels}.get({self.constant(field.label)})"
        value = self._object(field.steps)
        return f"{'()' if field.many else 'None'} if {value} is UNSET else {value}"

    def _object(self, steps: tuple[str, ...]) -> str:
        """Variable with what the steps lead to, or UNSET."""
        if not steps:
            return "e"
        if ("object", steps) not in self._variables:
            outer, variable = self._object(steps[:-1]), self._new("object", steps)
            inner = f"{outer}.{_word(steps[-1])}"
            self.lines.append(f"{variable} = " + (inner if outer == "e" else f"UNSET if {outer} is UNSET else {inner}"))
        return self._variables["object", steps]

    def _new(self, *key: Any) -> str:
        self._variables[key] = f"v{len(self._variables)}"
        return self._variables[key]


def _word(attribute: str) -> str:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", attribute), attribute
    return attribute


def _searcher(patterns: Sequence[str]) -> Callable[[str], Sequence[int]]:
    """Says which of the patterns are found in a text."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PATTERN_BYTES
    together = re2.Set.SearchSet(options)
    for pattern in patterns:
        together.Add(pattern)
    together.Compile()

    def search(text: str) -> Sequence[int]:
        return together.Match(text) or ()

    return search


def _address(text: str) -> tuple[int, int] | None:
    """(version, number) of an address, in half the time of ipaddress; IPv4 written as IPv6 counts as IPv4."""
    try:
        if ":" not in text:
            return 4, int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
        number = int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
    except (OSError, ValueError):
        return None
    return (4, number & 0xFFFF_FFFF) if number >> 32 == 0xFFFF else (6, number)


def _inside(ranges: tuple[tuple[int, int, int], ...], address: tuple[int, int]) -> bool:
    version, number = address
    return any(v == version and low <= number <= high for v, low, high in ranges)
