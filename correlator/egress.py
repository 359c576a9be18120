"""The egress allow-list: a small file of destinations -> a condition that rules exclude. Owns the file's format.

Whoever can choose an image's name or a label can choose a container's allowance, so an image is compared by its whole
repository name (see tree.Repository) and a label by its exact value: nothing matches by resembling.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

from correlator import fields
from correlator.tree import And, Const, Match, Networks, Node, Numbers, Op, Or, Repository, Text, full_repository
from tocsin import strict_yaml
from tocsin.errors import ConfigError, Problem
from tocsin.strict_yaml import Mapping, Sequence

_SECTIONS = ("networks", "images", "labels")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_IMAGE = re.compile(rf"(?:{_NAME}:[0-9]+/)?{_NAME}(?:/{_NAME})*(?:/\*)?")


def load(file: Path) -> Node:
    """The condition that holds for an allowed destination. Raises ConfigError with every problem found."""
    content = strict_yaml.one(file)
    reader = _Reader(str(file))
    node = reader.allowed(content)
    if reader.problems:
        raise ConfigError(reader.problems)
    return node


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[Problem] = []

    def allowed(self, content: Mapping) -> Node:
        items: list[Node] = []
        for key in content:
            if key not in _SECTIONS:
                self._problem(content.lines[key], f"unknown key {key!r}; known: {', '.join(_SECTIONS)}")
        if content.get("networks") is not None:
            items += self._destinations(content["networks"], content.lines["networks"])
        for name, line, value in self._entries(content, "images"):
            items += self._scoped(self._image(name, line), value, line)
        for name, line, value in self._entries(content, "labels"):
            items += self._scoped(self._label(name, line), value, line)
        return Or(tuple(items)) if items else Const(False, "the egress allow-list is empty")

    def _problem(self, line: int, text: str) -> None:
        self.problems.append(Problem(self._file, line, text))

    def _entries(self, content: Mapping, section: str) -> list[tuple[str, int, Any]]:
        value = content.get(section)
        if isinstance(value, Mapping):
            return [(name, value.lines[name], item) for name, item in value.items()]
        if value is not None:
            self._problem(content.lines[section], f"{section} must be a mapping of names to lists of destinations")
        return []

    def _scoped(self, scope: Match | None, value: Any, line: int) -> list[Node]:
        destinations = self._destinations(value, line)
        return [And((scope, Or(tuple(destinations))))] if scope and destinations else []

    def _image(self, name: str, line: int) -> Match | None:
        if not _IMAGE.fullmatch(name):
            self._problem(line, f"{name!r} is no image repository (no tag, no wildcard but a final /*)")
            return None
        namespace = name.endswith("/*")
        full = full_repository(name.removesuffix("*") + "x").removesuffix("x") if namespace else full_repository(name)
        test = Repository((), (full,)) if namespace else Repository((full,), ())
        return self._match("container.image.name", test, line)

    def _label(self, name: str, line: int) -> Match | None:
        key, equals, value = name.partition("=")
        if not (key and equals and value):
            self._problem(line, f"{name!r} must be label=value")
            return None
        return self._match(f"container.labels.{key}", Text(Op.EQUALS, (value,), cased=True), line)

    def _destinations(self, value: Any, line: int) -> list[Node]:
        if not isinstance(value, Sequence) or not value:
            self._problem(line, "must be a list of networks")
            return []
        plain: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        nodes: list[Node] = []
        for item, at in zip(value, value.lines, strict=True):
            ports = item.get("ports") if isinstance(item, Mapping) else None
            network = self._network(item, at)
            if network is None:
                continue
            if ports is None:
                plain.append(network)
            elif self._ports_fit(ports, at):
                match_ports = self._match("destination.port", Numbers(tuple(ports)), at)
                nodes.append(And((self._match("destination.ip", Networks((network,)), at), match_ports)))
        if plain:
            nodes.insert(0, self._match("destination.ip", Networks(tuple(plain)), line))
        return nodes

    def _network(self, item: Any, line: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
        text = item
        if isinstance(item, Mapping):
            text = item.get("network")
            for key in set(item) - {"network", "ports"}:
                self._problem(item.lines[key], f"unknown key {key!r}; a destination has network and ports")
        try:
            return ipaddress.ip_network(text if isinstance(text, str) else "")
        except ValueError as e:
            self._problem(line, f"{text!r} is no network: {e}")
            return None

    def _ports_fit(self, ports: Any, line: int) -> bool:
        fits = (
            isinstance(ports, list)
            and bool(ports)
            and all(isinstance(p, int) and not isinstance(p, bool) and 0 < p < 65_536 for p in ports)
        )
        if not fits:
            self._problem(line, "ports must be a list of numbers from 1 to 65535")
        return fits

    @staticmethod
    def _match(path: str, test: Any, line: int) -> Match:
        field = fields.find(path)
        assert field is not None
        return Match(field, test, line)
