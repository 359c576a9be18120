"""The real sensor on the real kernel, watching the lab's containers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_mappings.event import Event, decode
from sensor.sensor import Sensor
from tocsin.lab import Container, Lab

Wanted = Callable[[Event], bool]


class Watch:
    """A running sensor and all it delivered."""

    def __init__(self, state_dir: Path, **options: Any) -> None:
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self.failures: list[BaseException] = []
        self.open = threading.Event()
        """Cleared, the forwarder hangs."""
        self.open.set()
        self.sensor = Sensor(self._deliver, state_dir, on_failure=self.failures.append, **options)

    def _deliver(self, lines: list[bytes]) -> None:
        self.open.wait()
        events = [decode(line) for line in lines]
        with self._changed:
            self._events += events
            self._changed.notify_all()

    @property
    def events(self) -> list[Event]:
        with self._changed:
            return list(self._events)

    def all(self, wanted: Wanted) -> list[Event]:
        return [e for e in self.events if wanted(e)]

    def one(self, wanted: Wanted, timeout_s: float = 10.0) -> Event:
        """The first that fits, waited for."""
        return self.some(1, wanted, timeout_s)[0]

    def some(self, count: int, wanted: Wanted, timeout_s: float = 10.0) -> list[Event]:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = [e for e in self._events if wanted(e)]
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"{len(found)} of {count} came, {len(self._events)} events in all"
                self._changed.wait(left)


@contextlib.contextmanager
def watching(state_dir: Path, **options: Any) -> Iterator[Watch]:
    watch = Watch(state_dir, **options)
    watch.sensor.start()
    try:
        yield watch
    finally:
        watch.sensor.stop()
        assert watch.failures == []


def does(action: str, container: Container | None = None, **fields: Any) -> Wanted:
    """An event with this action, of this container, whose process has these fields."""

    def wanted(event: Event) -> bool:
        if event.event.action != action or (container and (not event.container or event.container.id != container.id)):
            return False
        return all(event.process and getattr(event.process, name) == value for name, value in fields.items())

    return wanted


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="package")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    with watching(tmp_path_factory.mktemp("sensor")) as made:
        assert made.sensor.status()["degraded"] == []
        yield made


@pytest.fixture(scope="package")
def box(lab: Lab, watch: Watch) -> Container:
    """A container that sleeps, with busybox."""
    return lab.container("box")


@pytest.fixture(scope="package")
def workshop(lab: Lab, watch: Watch) -> Container:
    """A container that sleeps, with IPv6 and this host's own /usr."""
    return lab.container(
        "workshop", options=(
            "--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--cap-add", "NET_RAW",
            "-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro",
        ),
    )  # fmt: skip
