"""A container connects to an address outside that nobody has allowed."""

from __future__ import annotations

import pytest

from tocsin.lab import outside
from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]


def test_a_connection_to_the_outside(shooting_range: Range) -> None:
    container = shooting_range.container()
    container.run("nc", "-w", "2", outside.ADDRESS, str(outside.PORT))
    alert = shooting_range.alert("unexpected-egress", container)
    assert alert.destination
    assert (alert.destination.ip, alert.destination.port) == (outside.ADDRESS, outside.PORT)


def test_a_neighbour_is_allowed_and_so_is_whoever_carries_the_label(shooting_range: Range) -> None:
    neighbour = shooting_range.container("nc", "-ll", "-p", "80", "-e", "/bin/true")
    container = shooting_range.container()
    container.run("nc", "-w", "2", neighbour.address(), "80")
    free = shooting_range.container(labels={"tocsin.egress": "any"})
    free.run("nc", "-w", "2", outside.ADDRESS, str(outside.PORT))
    assert shooting_range.stays_silent(container)
    assert shooting_range.stays_silent(free)
