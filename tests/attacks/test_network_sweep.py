"""One container looks for others that offer the same service."""

from __future__ import annotations

import pytest

from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

SWEEP = "for n in $(seq 100 135); do nc -w 2 $0.$n 22 < /dev/null & done; wait"


def test_one_port_of_many_neighbours(shooting_range: Range) -> None:
    container = shooting_range.container()
    container.run("sh", "-c", SWEEP, container.address().rpartition(".")[0])
    shooting_range.alert("network-sweep", container)
