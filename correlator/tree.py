"""Our own small typed tree of a rule's condition: what pySigma's objects become and what is compiled.

Text compares without case unless `cased`; the values of such a test are kept in lower case. A test holds for a field
when it holds for any of its values, so nothing but `Exists(False)` and a `Not` ever holds for a missing field.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import re2

from correlator.fields import Field, as_text

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Op(StrEnum):
    EQUALS = "is"
    STARTS = "starts with"
    ENDS = "ends with"
    CONTAINS = "contains"


class Test(Protocol):
    """A condition on one value."""

    def holds(self, value: Any) -> bool: ...

    def words(self) -> str:
        """The condition in words, for people."""


@dataclass(frozen=True)
class Text:
    """Any of `values`."""

    op: Op
    values: tuple[str, ...]
    cased: bool = False

    def holds(self, value: Any) -> bool:
        text = as_text(value) if self.cased else as_text(value).lower()
        match self.op:
            case Op.EQUALS:
                return text in self.values
            case Op.STARTS:
                return text.startswith(self.values)
            case Op.ENDS:
                return text.endswith(self.values)
            case Op.CONTAINS:
                return any(x in text for x in self.values)

    def words(self) -> str:
        return f"{self.op} {_any(self.values)}" + (" (exact case)" if self.cased else "")


@dataclass(frozen=True)
class Glob:
    """A pattern with `*` inside: `parts` in this order, the first at the start and the last at the end."""

    parts: tuple[str, ...]
    cased: bool = False

    def holds(self, value: Any) -> bool:
        text = as_text(value) if self.cased else as_text(value).lower()
        first, *middle, last = self.parts
        if not text.startswith(first):
            return False
        at = len(first)
        for part in middle:
            found = text.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return text.endswith(last) and len(text) - len(last) >= at

    def words(self) -> str:
        return f"is like {'*'.join(self.parts)!r}" + (" (exact case)" if self.cased else "")


class Regex:
    """A search in linear time (RE2), so that no event can stall the engine. Raises ValueError on what RE2 cannot do."""

    __slots__ = ("_search", "pattern")

    def __init__(self, pattern: str) -> None:
        options = re2.Options()
        options.log_errors = False
        try:
            self._search = re2.compile(pattern, options).search
        except re2.error as e:
            reason = e.args[0].decode(errors="replace") if isinstance(e.args[0], bytes) else str(e)
            raise ValueError(reason) from e
        self.pattern = pattern

    def holds(self, value: Any) -> bool:
        return self._search(as_text(value)) is not None

    def words(self) -> str:
        return f"matches /{self.pattern}/"


@dataclass(frozen=True)
class Networks:
    """An address inside any of the networks. An IPv4 address written as IPv6 (::ffff:a.b.c.d) counts as IPv4."""

    networks: tuple[Network, ...]

    def holds(self, value: Any) -> bool:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)

    def words(self) -> str:
        return f"is in {_any(str(n) for n in self.networks)}"


@dataclass(frozen=True)
class Numbers:
    """Equal to any of the values."""

    values: tuple[float, ...]

    def holds(self, value: Any) -> bool:
        return value in self.values

    def words(self) -> str:
        return f"is {_any(str(v) for v in self.values)}"


@dataclass(frozen=True)
class Compare:
    """`op` is one of <, <=, >, >=."""

    op: str
    number: float

    def holds(self, value: Any) -> bool:
        match self.op:
            case "<":
                return bool(value < self.number)
            case "<=":
                return bool(value <= self.number)
            case ">":
                return bool(value > self.number)
            case _:
                return bool(value >= self.number)

    def words(self) -> str:
        return f"{self.op} {self.number}"


@dataclass(frozen=True)
class Flag:
    value: bool

    def holds(self, value: Any) -> bool:
        return value is self.value

    def words(self) -> str:
        return f"is {as_text(self.value)}"


@dataclass(frozen=True)
class Repository:
    """An image name whose repository is one of `names`, or lies directly or deeper under one of `namespaces`.

    Tag and digest are cut off first, and `nginx`, `library/nginx` and `docker.io/library/nginx` are the same.
    Nothing else is: neither `evil/nginx` nor `nginx-evil` nor `evil.example/nginx`.
    """

    names: tuple[str, ...]
    namespaces: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        repository = full_repository(value)
        return repository in self.names or repository.startswith(self.namespaces)

    def words(self) -> str:
        return f"is the image {_any((*self.names, *(f'{x}*' for x in self.namespaces)))}"


@dataclass(frozen=True)
class Exists:
    """Holds by the presence of the field alone; never asked about a value."""

    value: bool

    def holds(self, value: Any) -> bool:
        return self.value

    def words(self) -> str:
        return "is there" if self.value else "is missing"


@dataclass(frozen=True)
class Match:
    field: Field
    test: Test
    line: int = 0


@dataclass(frozen=True)
class Same:
    """Two single-valued fields compared with each other (Sigma's fieldref), without case."""

    field: Field
    op: Op
    other: Field
    line: int = 0

    def holds(self, value: Any, other: Any) -> bool:
        return Text(self.op, (as_text(other).lower(),)).holds(value)


@dataclass(frozen=True)
class And:
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    item: Node


@dataclass(frozen=True)
class Named:
    """A selection of the rule, so that an explanation can name it."""

    name: str
    item: Node


@dataclass(frozen=True)
class Const:
    """Decided when the rule was loaded: `why` says by what."""

    value: bool
    why: str


Node = Match | Same | And | Or | Not | Named | Const


def full_repository(image: str) -> str:
    """`nginx:1.25` -> `docker.io/library/nginx`; a bare image id (sha256:...) stays what it is."""
    name = image.split("@", 1)[0]
    head, slash, last = name.rpartition("/")
    if name.startswith("sha256:"):
        return name
    name = head + slash + last.split(":", 1)[0]
    registry, slash, rest = name.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, rest = "docker.io", name
    if registry in ("docker.io", "index.docker.io"):
        registry = "docker.io"
        rest = rest if "/" in rest else f"library/{rest}"
    return f"{registry}/{rest}"


def fields_of(node: Node) -> set[Field]:
    """Every field the condition looks at."""
    return {x for leaf in leaves(node) for x in ((leaf.field, leaf.other) if isinstance(leaf, Same) else (leaf.field,))}


def leaves(node: Node) -> Iterator[Match | Same]:
    match node:
        case Match() | Same():
            yield node
        case And(items=items) | Or(items=items):
            for item in items:
                yield from leaves(item)
        case Not(item=item) | Named(item=item):
            yield from leaves(item)
        case Const():
            pass


def _any(values: Any) -> str:
    shown = [repr(v) for v in values]
    return shown[0] if len(shown) == 1 else "any of " + ", ".join(shown)
