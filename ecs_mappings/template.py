"""From the event type to the legal field paths and to the index template. Owns no field: those are event.py's."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from ecs_mappings.event import ECS_VERSION, Event

Kind = Literal["keyword", "text", "ip", "long", "float", "boolean", "date", "labels"]

OPTIONAL_TYPES = {"wildcard": "keyword", "match_only_text": "text"}
"""Elasticsearch types that only full clusters have -> what stands in for them."""

IGNORE_ABOVE = 1024
"""Characters, as ECS sets it. A longer keyword stays in the document but cannot be searched by value."""

LONG_IGNORE_ABOVE = 8191
"""For long strings without the wildcard type: Lucene refuses a term over 32,766 bytes, which is this many characters
of four. Without the limit one long command line would get its whole document refused."""

TOTAL_FIELDS_LIMIT = 1000

_KINDS: dict[type, Kind] = {
    msgspec.inspect.StrType: "keyword",
    msgspec.inspect.IntType: "long",
    msgspec.inspect.FloatType: "float",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.DateTimeType: "date",
}
_KIND_OF_ES: dict[str, Kind] = {
    "keyword": "keyword",
    "wildcard": "keyword",
    "match_only_text": "text",
    "ip": "ip",
    "flattened": "labels",
}


@dataclass(frozen=True)
class FieldType:
    kind: Kind
    """`text` may hold anything and has no exact value; `labels` is a map whose keys are the user's."""
    es: str
    """Type in Elasticsearch, on a cluster that has them all."""
    list_path: str = ""
    """Path of the list that this field is or is inside of; empty for a single value."""
    indexed: bool = True
    """False: kept, never searched."""

    @property
    def many(self) -> bool:
        """An event may carry several values."""
        return bool(self.list_path)


@functools.cache
def field_paths() -> Mapping[str, FieldType]:
    """Every legal dotted path of an event, in the order of the contract. A map appears as `container.labels.*`."""
    return types.MappingProxyType(dict(_walk(msgspec.inspect.type_info(Event), "", "")))


def field_type(path: str) -> FieldType | None:
    """The type of one path, or None when no event can have it. `container.labels.KEY` is legal with any key."""
    paths = field_paths()
    if found := paths.get(path):
        return found if found.kind != "labels" else None
    label = split_label(path)
    return FieldType("keyword", "keyword", paths[label[0] + ".*"].list_path) if label else None


def split_label(path: str) -> tuple[str, str] | None:
    """("container.labels", KEY) when the path names one key of a map; the key may itself hold dots."""
    for known, kind in field_paths().items():
        base = known.removesuffix("*")
        if kind.kind == "labels" and path.startswith(base) and path != base:
            return base.removesuffix("."), path.removeprefix(base)
    return None


def _walk(info: msgspec.inspect.Type, path: str, list_path: str) -> Iterator[tuple[str, FieldType]]:
    if isinstance(info, msgspec.inspect.ListType):
        yield from _walk(info.item_type, path, path)
    elif isinstance(info, msgspec.inspect.StructType):
        for field in info.fields:
            yield from _walk(field.type, f"{path}.{field.encode_name}" if path else field.encode_name, list_path)
    else:
        leaf = _leaf(info, path, list_path)
        yield (f"{path}.*" if leaf.kind == "labels" else path), leaf


def _leaf(info: msgspec.inspect.Type, path: str, list_path: str) -> FieldType:
    if isinstance(info, msgspec.inspect.Metadata):
        extra = info.extra or {}
        if "es" in extra:
            return FieldType(_KIND_OF_ES[extra["es"]], extra["es"], list_path, extra.get("index", True))
        return _leaf(info.type, path, list_path)
    kind = _KINDS.get(type(info))
    if kind is None:
        raise TypeError(f"{path}: an event field may not be a {type(info).__name__}; see ecs_mappings/template.py")
    # ECS says date, which rounds to milliseconds: it would lose the order of what happened within one.
    return FieldType(kind, "date_nanos" if kind == "date" else kind, list_path)


def mappings(supported: AbstractSet[str] = frozenset(OPTIONAL_TYPES)) -> dict[str, Any]:
    """The mappings of every Tocsin data stream. `supported`: which of OPTIONAL_TYPES the cluster has.

    `dynamic: false`: a field the contract does not know stays in the document and never becomes a mapped field, so
    nothing an attacker writes can change or exhaust the mapping.
    """
    root: dict[str, Any] = {}
    for path, kind in field_paths().items():
        *parents, name = path.removesuffix(".*").split(".")
        level = root
        for parent in parents:
            level = level.setdefault(parent, {"properties": {}})["properties"]
        level[name] = _mapping(path, kind, supported)
    return {"dynamic": False, "date_detection": False, "_meta": {"ecs_version": ECS_VERSION}, "properties": root}


def _mapping(path: str, kind: FieldType, supported: AbstractSet[str]) -> dict[str, Any]:
    es = kind.es if kind.es not in OPTIONAL_TYPES or kind.es in supported else OPTIONAL_TYPES[kind.es]
    mapping: dict[str, Any] = {"type": es}
    if not kind.indexed:
        mapping |= {"index": False, "doc_values": False}
    elif es == "keyword":
        mapping["ignore_above"] = LONG_IGNORE_ABOVE if kind.es == "wildcard" else IGNORE_ABOVE
    elif es == "flattened":
        mapping["ignore_above"] = IGNORE_ABOVE
    if path == "@timestamp":
        # Overrides the index setting below: a data stream needs its time.
        mapping["ignore_malformed"] = False
    return mapping


def settings() -> dict[str, Any]:
    """Index settings. `ignore_malformed`: an odd address or number leaves that field unsearchable, not the document
    refused."""
    return {
        "index": {
            "mapping": {"ignore_malformed": True, "total_fields": {"limit": TOTAL_FIELDS_LIMIT}},
            "number_of_shards": 1,
            "auto_expand_replicas": "0-1",
        }
    }
