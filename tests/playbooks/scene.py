"""What the tests of the core stand on: playbooks from text, with actions of their own, over a Docker in memory."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

import playbooks.actions
from ecs_mappings.event import AlertDetail, Container, Ecs, Event, EventMeta, Process, Rule, Tocsin, decode, encode
from playbooks.action import Delivery
from playbooks.daemon_fake import FakeDaemon
from playbooks.document import Mode
from playbooks.ledger import Ledger
from playbooks.live import Services
from playbooks.playbooks import Playbooks
from playbooks.records import UNFINISHED, Run, StepRecord
from playbooks.schema import Playbook, load
from tocsin.errors import ConfigError, Problem

PROBES = str(Path(__file__).parent / "probes")


@contextlib.contextmanager
def probes() -> Iterator[None]:
    """The tests' own actions, probe.*, are there like any other; but only here, not for the tests of others."""
    playbooks.actions.__path__.append(PROBES)
    try:
        yield
    finally:
        playbooks.actions.__path__.remove(PROBES)


CONTAINER = "c" * 64
_numbers = itertools.count(1)


def alert(id: str | None = None, **changes: Any) -> Event:
    """An opened alert of severity high about the container CONTAINER."""
    now = datetime.now(UTC)
    detail = AlertDetail(
        group="g", key=["k"], severity=changes.pop("severity", "high"), count=1, events=["e"], first_seen=now,
        last_seen=now,
    )  # fmt: skip
    values: dict[str, Any] = {
        "timestamp": now,
        "ecs": Ecs(),
        "event": EventMeta(
            id=id or f"alert-{next(_numbers)}", kind="alert", category=["intrusion_detection"], type=["info"],
            action=changes.pop("action", "opened"), dataset="tocsin.alert",
        ),
        "container": Container(id=CONTAINER, name="web"),
        "process": Process(name="sh", args=["sh", "-i"], pid=7),
        "rule": Rule(id="r-1", name="shell"),
        "tocsin": Tocsin(alert=detail),
    }  # fmt: skip
    return Event(**values | changes)


def no_secrets(name: str) -> str:
    raise ConfigError([Problem("settings", 0, f"the secret {name!r} is not set")])


def written(directory: Path, *texts: str) -> list[Playbook]:
    """The playbooks of these texts."""
    directory.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (directory / f"p{number}.yml").write_text(text)
    return load([directory])


class Scene:
    """One playbooks process over one ledger directory. restart() is what comes after a stop or a kill."""

    def __init__(self, directory: Path, *texts: str, ceiling: Mode = Mode.ENFORCE) -> None:
        self.directory = directory
        self.texts = texts
        self.ceiling = ceiling
        self.daemon = FakeDaemon()
        self.daemon.add(id=CONTAINER, started_at=datetime.now(UTC) - timedelta(hours=1))
        self.emitted: list[Event] = []
        self.sent: list[Delivery] = []
        self.send: Callable[[Delivery], object] = self.sent.append
        self.emit: Callable[[Sequence[bytes]], None] = lambda lines: self.emitted.extend(map(decode, lines))
        self.open()

    def open(self) -> None:
        services = Services(daemon=self.daemon, secrets=no_secrets, evidence_dir=self.directory / "evidence")
        self.made = written(self.directory / "playbooks", *self.texts)
        self.core = Playbooks(
            self.made, self.directory / "ledger", services, lambda d: self.send(d), lambda lines: self.emit(lines),
            mode_ceiling=self.ceiling, own_ids=(),
        )  # fmt: skip
        self.core.start()

    @property
    def ledger(self) -> Ledger:
        return self.core._ledger

    def take(self, *alerts: Event) -> int:
        return self.core.take([encode(a) for a in alerts])

    def run_of(self, *alerts: Event) -> Run:
        """Takes the alerts, waits until nothing runs any more; the newest run."""
        self.take(*alerts)
        self.settle()
        return self.ledger.runs(1)[0]

    def settle(self, *, waiting_is_busy: bool = False) -> None:
        busy = set(UNFINISHED) - (set() if waiting_is_busy else {"waiting", "queued"})
        until(lambda: not [r for r in self.ledger.unfinished() if r.state in busy])

    def steps(self, run: Run) -> dict[str, StepRecord]:
        return {s.step_id: s for s in self.ledger.steps(run.id)}

    def responses(self, count: int) -> list[Event]:
        until(lambda: len(self.emitted) >= count)
        return self.emitted

    def close(self) -> None:
        self.core.stop(2)

    def restart(self) -> None:
        self.close()
        self.open()


def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.002)


def line(value: object) -> bytes:
    return msgspec.json.encode(value)
