"""Fixtures of the core's tests; what they are made of is in scene.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Tests are not a package: this is how they share a module.
sys.path.insert(0, str(Path(__file__).parent))

from scene import Scene, probes


@pytest.fixture(autouse=True, scope="module")
def own_actions() -> Iterator[None]:
    with probes():
        yield


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """scene(text, ...) -> a running playbooks process with these playbooks."""
    made: list[Scene] = []

    def make(*texts: str, **options: Any) -> Scene:
        made.append(Scene(tmp_path, *texts, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
