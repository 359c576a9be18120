"""One Tocsin for all attacks, in dry-run: each attack has containers of its own, and must raise its alert."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tocsin.lab import Lab
from tocsin.lab.instance import Instance
from tocsin.lab.range import Range


@pytest.fixture(scope="package")
def shooting_range() -> Iterator[Range]:
    with Lab() as lab, Instance({"playbooks": {"mode": "dry-run"}}) as tocsin, Range(lab, tocsin) as made:
        yield made
