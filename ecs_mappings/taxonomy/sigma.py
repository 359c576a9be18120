"""Reads sigma.yml beside it: SigmaHQ's field and logsource names in terms of the contract."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tocsin import strict_yaml


@dataclass(frozen=True)
class Taxonomy:
    logsources: Mapping[str, tuple[str, str]]
    """Category -> (dataset, action)."""
    fields: Mapping[str, str]
    """Sigma's name -> ECS path."""
    constants: Mapping[str, str]
    """Sigma's name -> the value it always has here."""
    absent: frozenset[str]
    """Sigma's names that no event of ours carries."""


@functools.cache
def taxonomy() -> Taxonomy:
    content = strict_yaml.one(Path(__file__).with_suffix(".yml"), name="ecs_mappings/taxonomy/sigma.yml")
    return Taxonomy(
        logsources={name: (x["dataset"], x["action"]) for name, x in content["logsources"].items()},
        fields=dict(content["fields"]),
        constants=dict(content["constants"]),
        absent=frozenset(content["absent"]),
    )
