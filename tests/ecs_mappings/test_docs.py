"""docs/events.md is current and complete."""

from __future__ import annotations

import csv
from pathlib import Path

import ecs_mappings.docs
from ecs_mappings.datasets import DATASETS
from ecs_mappings.event import decode, encode
from ecs_mappings.template import field_paths
from sensor.probes import connect, exec, exit
from sensor.sources.lifecycle import ACTIONS

_PAGE = Path(__file__).parents[2] / "docs" / "events.md"

_CATEGORIES = {"configuration", "file", "host", "intrusion_detection", "network", "process"}
_TYPES = {"access", "change", "connection", "creation", "deletion", "denied", "end", "info", "start"}
"""Of ECS's allowed values, those that we use."""


def test_page_is_current() -> None:
    assert _PAGE.read_text() == ecs_mappings.docs.page(), "run: python -m ecs_mappings.docs > docs/events.md"


def test_every_field_is_listed() -> None:
    page = ecs_mappings.docs.page()
    assert [path for path in field_paths() if f"| `{path}` |" not in page] == []


def test_docstrings_of_fields_are_found() -> None:
    assert "Parent first, up to the container's init." in ecs_mappings.docs.page()


def test_example_is_a_legal_event() -> None:
    example = ecs_mappings.docs.example()
    assert decode(encode(example)) == example
    dataset = DATASETS[example.event.dataset]
    assert tuple(example.event.category) == dataset.category
    assert tuple(example.event.type) == dataset.actions[example.event.action].types


def test_datasets_use_ecs_words() -> None:
    for dataset in DATASETS.values():
        assert set(dataset.category) <= _CATEGORIES
        for action in dataset.actions.values():
            assert set(action.types) <= _TYPES


def test_datasets_list_what_the_sensor_sends() -> None:
    told = DATASETS["tocsin.container"].actions
    assert {action: (type_,) for action, type_ in ACTIONS.values()} == {a: told[a].types for a in told}
    for probe in (connect, exec, exit):
        action = DATASETS[probe.DATASET].actions[probe.__name__.rpartition(".")[2]]
        assert (tuple(probe.CATEGORY), tuple(probe.TYPE)) == (DATASETS[probe.DATASET].category, action.types)


def test_facts_are_whole() -> None:
    facts = Path(ecs_mappings.docs.__file__).with_name("ecs_fields.csv")
    with facts.open() as file:
        assert csv.DictReader(file).fieldnames == ["field", "type", "normalization"]
