"""Where attacks are tried: containers on one side, the alerts they raise on the other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from ecs_mappings.event import Event
from tocsin.errors import TocsinError
from tocsin.lab import Container, Lab
from tocsin.lab.instance import Instance
from tocsin.lab.tail import Tail

TIMEOUT_S = 10.0
SILENCE_S = 1.0
"""An alert takes milliseconds; after this long there will be none."""


class Range:
    """Watches the alerts of one Tocsin. Something listens outside, so that connections to it succeed."""

    def __init__(self, lab: Lab, tocsin: Instance) -> None:
        self.lab = lab
        self._store = tocsin.store()
        self._tail = Tail(self._store, datetime.now(UTC), ["tocsin.alert"])
        self._numbers = itertools.count(1)
        lab.outside()

    def container(self, *command: str, image: str = "", labels: Mapping[str, str] | None = None) -> Container:
        return self.lab.container(f"range{next(self._numbers)}", *command, image=image, labels=labels)

    def alert(self, rule: str, container: Container | None) -> Event:
        """The alert of that rule for that container, or of a process outside of any for None.

        TocsinError, with what was raised instead, when none comes.
        """
        found: list[Event] = []

        def fired() -> bool:
            found[:] = [alert for alert in self._alerts(container) if alert.rule and alert.rule.id == rule]
            return bool(found)

        if not self._tail.until(fired, TIMEOUT_S):
            where = container.name if container else "what is in no container"
            raise TocsinError(f"{rule} did not fire for {where}, only {self.rules(container) or 'nothing'}")
        return found[0]

    def rules(self, container: Container | None) -> set[str]:
        """Which rules have fired for the container so far."""
        self._tail.poll()
        return {alert.rule.id or "" for alert in self._alerts(container) if alert.rule}

    def stays_silent(self, container: Container) -> bool:
        time.sleep(SILENCE_S)
        return not self.rules(container)

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Range:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _alerts(self, container: Container | None) -> list[Event]:
        wanted = container.id if container else None
        return [
            e
            for e in self._tail.events
            if e.event.action == "opened" and (e.container.id if e.container else None) == wanted
        ]
