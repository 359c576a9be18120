"""A command line is padded, so that what matters stands behind what a sensor keeps."""

from __future__ import annotations

import pytest

from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

PADDED = """/bin/true "$(head -c 100000 /dev/zero | tr '\\0' x)" evil"""


def test_a_padded_command_line(shooting_range: Range) -> None:
    container = shooting_range.container()
    container.run("sh", "-c", PADDED)
    shooting_range.alert("evidence-cut", container)
