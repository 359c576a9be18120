"""Writes docs/events.md from the contract: `python -m ecs_mappings.docs > docs/events.md`."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from ecs_mappings import event as contract
from ecs_mappings.datasets import ANY, DATASETS
from ecs_mappings.event import (
    Ancestor,
    Container,
    Ecs,
    Event,
    EventMeta,
    Host,
    Image,
    Latency,
    ParentProcess,
    Process,
    ProcessDetail,
    Tocsin,
    User,
)
from ecs_mappings.template import FieldType, field_paths

_HEAD = f"""# Events

Everything Tocsin sees, judges and does is an event: one JSON object, in the field names and types of
[ECS](https://www.elastic.co/guide/en/ecs/current/index.html) {contract.ECS_VERSION}. What ECS has no field
for is under `tocsin.*`. In Elasticsearch an event is in the data stream `logs-<event.dataset>-<namespace>`.

This page is made from `ecs_mappings/` by `python -m ecs_mappings.docs > docs/events.md`; change that, not this.
"""

_FIELDS_HEAD = """
## Fields

A field that does not apply is absent. A list is always a list. Rules, playbooks and searches may use these paths and no
others; they refuse a file that names another.

| field | type | meaning |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, "\n## Datasets and actions\n", *_datasets(), _example(), _FIELDS_HEAD, *_field_rows()]
    return "".join(parts)


def _datasets() -> Iterator[str]:
    for name, dataset in DATASETS.items():
        category = ", ".join(dataset.category)
        yield f"\n### {name}\n{dataset.about} Category: {category}.\n\n| action | type | when |\n|---|---|---|\n"
        for action, detail in dataset.actions.items():
            shown = "the step's action" if action == ANY else f"`{action}`"
            yield f"| {shown} | {', '.join(detail.types)} | {detail.when} |\n"


def _field_rows() -> Iterator[str]:
    told: set[str] = set()
    for path, kind in field_paths().items():
        name = path.removesuffix(".*")
        for owner in _objects(name):
            if owner not in told and (about := _about(owner)):
                yield f"| `{owner}` | object | {about} |\n"
            told.add(owner)
        yield f"| `{path}` | {_type(kind)} | {_meaning(name)} |\n"


def _type(kind: FieldType) -> str:
    words = ["list of" if kind.many else "", "map to keyword" if kind.kind == "labels" else kind.kind]
    return " ".join(word for word in words if word) + ("" if kind.indexed else ", not searchable")


def _objects(path: str) -> list[str]:
    """The paths of the objects that hold it, outermost first."""
    names = path.split(".")
    return [".".join(names[:depth]) for depth in range(1, len(names))]


def _about(path: str) -> str:
    """The docstring of the object at the path."""
    structs = [_struct(field.type) for _, field in _fields(path)]
    held = structs[-1]
    return _cell(ast.get_docstring(_definition(held))) if held else ""


def _meaning(path: str) -> str:
    """The docstring of the field, or of the nearest object around it that has one."""
    texts = [_docstrings(owner).get(field.name) for owner, field in _fields(path)]
    return _cell(next((text for text in reversed(texts) if text), None))


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _fields(path: str) -> list[tuple[type[msgspec.Struct], msgspec.structs.FieldInfo]]:
    """Each step of the path: the struct, and its field."""
    owner: type[msgspec.Struct] | None = Event
    steps = []
    for name in path.split("."):
        assert owner is not None
        field = next(f for f in msgspec.structs.fields(owner) if f.encode_name == name)
        steps.append((owner, field))
        owner = _struct(field.type)
    return steps


def _struct(annotation: object) -> type[msgspec.Struct] | None:
    """The struct that a field holds, alone or in a list."""
    info = msgspec.inspect.type_info(annotation)
    if isinstance(info, msgspec.inspect.UnionType):
        info = next(t for t in info.types if not isinstance(t, msgspec.inspect.NoneType))
    if isinstance(info, msgspec.inspect.ListType):
        info = info.item_type
    return info.cls if isinstance(info, msgspec.inspect.StructType) else None


@functools.cache
def _docstrings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Field name -> the string right below it in the source. The language does not keep these."""
    found: dict[str, str] = {}
    for above, below in itertools.pairwise(_definition(struct).body):
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name):
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[above.target.id] = str(below.value.value)
    return found


@functools.cache
def _definition(struct: type[msgspec.Struct]) -> ast.ClassDef:
    source = ast.parse(inspect.getsource(contract))
    return next(n for n in source.body if isinstance(n, ast.ClassDef) and n.name == struct.__name__)


def example() -> Event:
    """A shell that somebody opened in a container."""
    seen = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)
    return Event(
        timestamp=seen,
        ecs=Ecs(),
        event=EventMeta(
            id="4f2c1d0a9b3e-000000000001-42",
            category=["process"],
            type=["start"],
            action="exec",
            dataset="tocsin.process",
            sequence=42,
        ),
        host=Host(id="4f2c1d0a9b3e", name="web-1"),
        container=Container(
            id="5d0f3c7be1a9" + "0" * 52,
            name="shop",
            runtime="docker",
            image=Image(name="nginx", tag=["1.27"]),
            labels={"com.example.team": "shop"},
        ),
        process=Process(
            pid=4711,
            vpid=12,
            entity_id="9b1f7a33c0de",
            name="sh",
            executable="/bin/sh",
            args=["sh", "-i"],
            args_count=2,
            command_line="sh -i",
            working_directory="/",
            interactive=True,
            start=seen - timedelta(microseconds=900),
            parent=ParentProcess(pid=4690, name="runc", executable="/usr/bin/runc"),
        ),
        user=User(id="0", name="root"),
        tocsin=Tocsin(
            latency=Latency(captured_ms=1.4),
            process=ProcessDetail(
                tty="pts0",
                stdin="char",
                stdout="char",
                stderr="char",
                ancestors=[Ancestor(name="nginx", executable="/usr/sbin/nginx", entity_id="77aa01c2b3d4")],
            ),
        ),
    )


def _example() -> str:
    text = msgspec.json.format(contract.encode(example()), indent=2).decode()
    return f"\n## Example\n\n```json\n{text}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(page())
