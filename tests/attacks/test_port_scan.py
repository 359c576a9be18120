"""One container tries the ports of another."""

from __future__ import annotations

import pytest

from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

SCAN = "for port in $(seq 1 60); do nc -w 1 $0 $port < /dev/null; done; true"


def test_sixty_ports_of_a_neighbour(shooting_range: Range) -> None:
    victim, attacker = shooting_range.container(), shooting_range.container()
    attacker.run("sh", "-c", SCAN, victim.address())
    shooting_range.alert("port-scan", attacker)
    assert shooting_range.rules(attacker) == {"port-scan"}


def test_a_few_ports_are_none(shooting_range: Range) -> None:
    neighbour, client = shooting_range.container(), shooting_range.container()
    client.run("sh", "-c", SCAN.replace("60", "3"), neighbour.address())
    assert shooting_range.stays_silent(client)
