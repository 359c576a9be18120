"""YAML as people write it, read strictly: every fault carries file and line. Imports nothing of ours but errors.

YAML 1.1 turns a bare `on` into True, `off` into False, `1.10` into 1.1 and keeps the last of two equal keys without a
word. Here only true and false are booleans and keys must be text; duplicates, alias bombs and custom tags are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tocsin.errors import ConfigError, Problem

MAX_FILE_BYTES = 1 << 20
MAX_NODES = 50_000  # an alias bomb of a few hundred bytes would expand to millions


class Mapping(dict[str, Any]):
    """A dict that remembers the line (from 1) of each of its keys, and of itself."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class Sequence(list[Any]):
    """A list that remembers the line (from 1) of each of its items, and of itself."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []


class _Loader(yaml.SafeLoader):
    """SafeLoader with the YAML 1.2 core rules for booleans, and none for dates or base-60 numbers."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?[0-9]+\.[0-9]+$", list("-+0123456789")),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)

_BOOLEAN_TRAPS = frozenset({"on", "off", "yes", "no", "y", "n"})


class _Reader:
    """Turns one node tree into Mapping, Sequence and scalars, and collects problems on the way."""

    def __init__(self, file: str, loader: _Loader) -> None:
        self.file = file
        self.loader = loader
        self.problems: list[Problem] = []
        self.nodes = 0

    def problem(self, node: yaml.Node, text: str) -> None:
        self.problems.append(Problem(self.file, node.start_mark.line + 1, text))

    def read(self, node: yaml.Node) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ConfigError([Problem(self.file, node.start_mark.line + 1, f"more than {MAX_NODES} values")])
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            out = Sequence(node.start_mark.line + 1)
            for item in node.value:
                out.lines.append(item.start_mark.line + 1)
                out.append(self.read(item))
            return out
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode) -> Mapping:
        out = Mapping(node.start_mark.line + 1)
        for key_node, value_node in node.value:
            key = self.read(key_node)
            if not isinstance(key, str):
                self.problem(key_node, f"the key {key_node.value!r} reads as {type(key).__name__}; put it in quotes")
                continue
            if key in out:
                self.problem(key_node, f"the key {key!r} stands here twice (first on line {out.lines[key]})")
                continue
            out.lines[key] = key_node.start_mark.line + 1
            out[key] = self.read(value_node)
        return out

    def _scalar(self, node: yaml.Node) -> Any:
        tag = str(node.tag)
        if not tag.startswith("tag:yaml.org,2002:") or tag.rsplit(":", 1)[1] not in {
            "str",
            "int",
            "float",
            "bool",
            "null",
        }:
            self.problem(node, f"the tag {tag!r} is not allowed")
            return None
        if tag.endswith(":str") and getattr(node, "style", None) is None and str(node.value).lower() in _BOOLEAN_TRAPS:
            self.problem(
                node,
                f"a bare {node.value} means true or false to some YAML readers; write true, false or {node.value!r}",
            )
        value: Hashable = self.loader.construct_object(node)
        return value


def load(path: Path, *, name: str | None = None) -> list[Any]:
    """All documents of the file. `name` is how errors call it (default: the path as given).

    Raises ConfigError with every problem found in the file.
    """
    file = name or str(path)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ConfigError([Problem(file, 0, f"cannot be read: {e.strerror}")]) from e
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([Problem(file, 0, f"is {len(data)} bytes long; the limit is {MAX_FILE_BYTES}")])
    return loads(data, file)


def loads(data: bytes, file: str) -> list[Any]:
    """The same, from bytes; `file` names them in errors."""
    try:
        loader = _Loader(data)
    except yaml.reader.ReaderError as e:
        raise ConfigError([Problem(file, 0, f"is not text: {e.reason} at byte {e.position}")]) from e
    reader = _Reader(file, loader)
    documents: list[Any] = []
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            documents.append(reader.read(node))
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 0
        raise ConfigError([*reader.problems, Problem(file, line, f"is not YAML: {e.problem}")]) from e
    except yaml.YAMLError as e:
        raise ConfigError([*reader.problems, Problem(file, 0, f"is not YAML: {e}")]) from e
    except RecursionError as e:
        raise ConfigError([*reader.problems, Problem(file, 0, "is nested too deep")]) from e
    finally:
        loader.dispose()
    if reader.problems:
        raise ConfigError(reader.problems)
    return documents


def one(path: Path, *, name: str | None = None) -> Mapping:
    """The file's one mapping; anything else is a ConfigError."""
    documents = load(path, name=name)
    if len(documents) != 1 or not isinstance(documents[0], Mapping):
        raise ConfigError([Problem(name or str(path), 1, "must hold exactly one YAML mapping")])
    return documents[0]
