"""kill -9 at any moment loses nothing that was acknowledged, and does nothing twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest

from ecs_mappings.event import Event
from tocsin.lab import Container, Lab, responses, runs
from tocsin.lab.client import docker
from tocsin.lab.instance import Instance
from tocsin.lab.receiver import Receiver
from tocsin.lab.synthetic import Producer, event_id, execs, shell
from tocsin.lab.tail import Tail

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

RATE = 2000
BETWEEN_KILLS_S = 3.0
VICTIMS = ("forwarder", "correlator", "playbooks", "sensor")
RECOVERY_S = 60.0


def load(run: str, lab: Lab, targets: list[Container]) -> Iterator[bytes]:
    """RATE everyday events for each second; around each kill one shell in a container just before, one just after."""
    shells = {}
    for n, target in enumerate(targets):
        kill_at = BETWEEN_KILLS_S * (n // 2 + 1)
        shells[int(RATE * (kill_at + (-0.05, 0.1)[n % 2]))] = target
    total = int(RATE * BETWEEN_KILLS_S * (len(VICTIMS) + 1))
    everyday = execs(run, total)
    for number, record in enumerate(everyday):
        target = shells.get(number)
        yield record if target is None else shell(run, number, target.id, target.name, {runs.LABEL: lab.run})


def containers(events: list[Event], action: str) -> Counter[str]:
    return Counter(event.container.id for event in events if event.event.action == action and event.container)


def pauses(container: Container, since: float) -> int:
    """How often Docker froze it."""
    window = ("--since", f"{since:.0f}", "--until", f"{time.time() + 1:.0f}")
    filters = ("--filter", f"container={container.id}", "--filter", "event=pause")
    return len(docker("events", *window, *filters, "--format", "{{.Action}}").split())


def test_each_process_in_turn_under_2000_events_a_second() -> None:
    begun = datetime.now(UTC)
    with (
        Receiver() as receiver,
        Lab() as lab,
        Instance(environ=responses.secrets(receiver), playbooks=responses.scoped(lab.run)) as tocsin,
    ):
        targets = [lab.container(f"target{n}") for n in range(2 * len(VICTIMS))]
        run = runs.new()
        producer = Producer(tocsin, RATE)
        records = load(run, lab, targets)
        sending = threading.Thread(target=producer.send, args=(records,))
        start = time.monotonic()
        sending.start()
        for n, victim in enumerate(VICTIMS):
            time.sleep(max(0.0, start + BETWEEN_KILLS_S * (n + 1) - time.monotonic()))
            tocsin.kill(victim)
        sending.join()

        total = int(RATE * BETWEEN_KILLS_S * (len(VICTIMS) + 1))
        assert producer.sent == total
        assert tocsin.settle(RECOVERY_S)
        with closing(tocsin.store()) as store:
            tail = Tail(store, begun)
            tail.poll(whole=True)
        stored = Counter(event.event.id for event in tail.events if event.event.id.startswith(run))
        assert stored == Counter({event_id(run, number): 1 for number in range(total)})
        mine = [e for e in tail.events if e.container and e.container.id in {target.id for target in targets}]
        once = Counter({target.id: 1 for target in targets})
        assert containers(mine, "opened") == once
        assert containers(mine, "docker.pause") == once
        for target in targets:
            assert target.status() == "paused"
            assert pauses(target, begun.timestamp()) == 1
        delivered = Counter(message.id for message in receiver.accepted())
        assert all(message.signed for message in receiver.received)
        assert len(delivered) >= len(targets)
        losses = [e for e in tail.events if e.event.action == "events_lost" and e.tocsin and e.tocsin.loss]
        assert {e.tocsin.loss.stage for e in losses if e.tocsin and e.tocsin.loss} <= {"restart"}
        assert losses, "a sensor that was killed must say that it may have missed something"


def test_an_undo_that_fell_due_while_nothing_ran_is_done_at_the_next_start() -> None:
    with Receiver() as receiver, Lab() as lab:
        playbooks = responses.scoped(lab.run, undo_after="3s")
        with Instance(environ=responses.secrets(receiver), playbooks=playbooks) as tocsin:
            target = lab.container("target")
            run = runs.new()
            shells = iter([shell(run, 0, target.id, target.name, {runs.LABEL: lab.run})])
            Producer(tocsin, RATE).send(shells)
            target.wait_for("paused")
            kill_all(tocsin)
            time.sleep(4)
            assert target.status() == "paused"
            tocsin.start()
            target.wait_for("running", timeout_s=5)
            assert pauses(target, time.time() - 60) == 1


def kill_all(tocsin: Instance) -> None:
    """As when the power fails: the supervisor first, so that it starts nothing again."""
    state = tocsin.state()
    assert state is not None
    pids = [state["pid"], *(tocsin.pid(name) for name in VICTIMS)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    tocsin.stop()
