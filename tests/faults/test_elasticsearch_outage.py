"""Elasticsearch goes away under load and comes back: the response does not wait, and in the end nothing is missing."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tocsin.lab import Lab, responses, runs
from tocsin.lab.instance import Instance
from tocsin.lab.receiver import Receiver
from tocsin.lab.synthetic import Producer, event_id, execs, shell
from tocsin.lab.tail import Tail

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.elastic]

RATE = 2000
OUTAGE_S = float(os.environ.get("TOCSIN_TEST_OUTAGE_S", "8"))
"""docs/benchmarks.md has the figures of 60 s."""
NODE = Path(__file__).parents[2] / "deploy/elasticsearch"


class Node:
    """An Elasticsearch of this test alone, so that it can be stopped."""

    def __init__(self, home: Path) -> None:
        self._home = home
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        subprocess.run([NODE / "start", self._home, str(self._port)], check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        subprocess.run([NODE / "stop", self._home], check=True)


@contextmanager
def node() -> Iterator[Node]:
    # Not pytest's directory: the node runs as a user of its own, which may not enter that.
    home = Path("/var/tmp") / f"tocsin-elastic-{os.getpid()}"
    made = Node(home)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        subprocess.run(["rm", "-rf", home], check=True)


def test_nothing_is_missing_after_an_outage_and_the_response_did_not_wait() -> None:
    begun = datetime.now(UTC)
    run = runs.new()
    total = int(RATE * (OUTAGE_S + 4))
    with (
        node() as elastic,
        Receiver() as receiver,
        Lab() as lab,
        Instance(
            {"store": {"url": elastic.url}}, responses.secrets(receiver), playbooks=responses.scoped(lab.run)
        ) as tocsin,
    ):
        target = lab.container("target")
        producer = Producer(tocsin, RATE)
        middle = int(RATE * (2 + OUTAGE_S / 2))
        records = (
            shell(run, n, target.id, target.name, {runs.LABEL: lab.run}) if n == middle else record
            for n, record in enumerate(execs(run, total))
        )
        sending = threading.Thread(target=producer.send, args=(records,))
        sending.start()
        time.sleep(2)
        elastic.stop()
        stopped = time.monotonic()
        target.wait_for("paused", timeout_s=OUTAGE_S)  # the shell comes in the middle of the outage
        time.sleep(max(0.0, stopped + OUTAGE_S - time.monotonic()))
        elastic.start()
        sending.join()

        store = tocsin.store()
        tail = Tail(store, begun)

        def stored() -> set[str]:
            return {event.event.id for event in tail.events if event.event.id.startswith(run)}

        def complete() -> bool:
            return len(stored()) >= total and any(event.event.action == "docker.pause" for event in tail.events)

        tail.until(complete, 90, pause_s=1.0)
        assert stored() == {event_id(run, number) for number in range(total)}
        assert len([e for e in tail.events if e.event.action == "opened"]) == 1
        assert len([e for e in tail.events if e.event.action == "docker.pause"]) == 1
        assert not [e for e in tail.events if e.event.action == "events_lost"]
        store.close()
