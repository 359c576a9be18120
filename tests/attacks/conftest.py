"""One Tocsin for all attacks, in dry-run: each attack runs in a container of its own, and must raise its alert."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ecs_mappings.event import Event
from tocsin.lab import Container, Lab
from tocsin.lab.instance import Instance
from tocsin.lab.tail import Tail

TIMEOUT_S = 10.0


class Range:
    """Where attacks are tried."""

    def __init__(self, lab: Lab, tocsin: Instance, tail: Tail) -> None:
        self.lab = lab
        self.tocsin = tocsin
        self._tail = tail

    def alert(self, rule: str, container: Container) -> Event:
        """The alert of that rule for that container; fails when there is none, or another rule fired as well."""

        def found() -> list[Event]:
            return [e for e in self.alerts(container) if e.rule and e.rule.id == rule]

        assert self._tail.until(lambda: bool(found()), TIMEOUT_S), (
            f"{rule} did not fire for {container.name}; it has {[e.rule for e in self.alerts(container)]}"
        )
        return found()[0]

    def alerts(self, container: Container) -> list[Event]:
        """The opened alerts of a container, so far."""
        self._tail.poll()
        return [
            event
            for event in self._tail.events
            if event.event.action == "opened" and event.container and event.container.id == container.id
        ]


@pytest.fixture(scope="package")
def range_() -> Iterator[Range]:
    with Lab() as lab, Instance({"playbooks": {"mode": "dry-run"}}) as tocsin:
        store = tocsin.store()
        yield Range(lab, tocsin, Tail(store, datetime.now(UTC), ["tocsin.alert"]))
        store.close()
