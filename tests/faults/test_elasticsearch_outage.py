"""Elasticsearch goes away under load and comes back: the response does not wait, and in the end nothing is missing."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from tocsin.lab import Lab, responses, runs
from tocsin.lab.instance import Instance
from tocsin.lab.receiver import Receiver
from tocsin.lab.synthetic import Producer, event_id, execs, shell
from tocsin.lab.tail import Tail

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.elastic]

RATE = 2000
RECOVERY_S = 90.0
OUTAGE_S = float(os.environ.get("TOCSIN_TEST_OUTAGE_S", "8"))
"""docs/benchmarks.md has the figures of 60 s."""


def test_nothing_is_missing_after_an_outage_and_the_response_did_not_wait(elastic_node: Any) -> None:
    begun = datetime.now(UTC)
    run = runs.new()
    total = int(RATE * (OUTAGE_S + 4))
    with (
        Receiver() as receiver,
        Lab() as lab,
        Instance(
            {"store": {"url": elastic_node.url}}, responses.secrets(receiver), playbooks=responses.scoped(lab.run)
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
        elastic_node.stop()
        stopped = time.monotonic()
        target.wait_for("paused", timeout_s=OUTAGE_S)  # the shell comes in the middle of the outage
        time.sleep(max(0.0, stopped + OUTAGE_S - time.monotonic()))
        elastic_node.start()
        sending.join()

        assert tocsin.settle(RECOVERY_S)
        with closing(tocsin.store()) as store:
            tail = Tail(store, begun)
            tail.poll(whole=True)
        stored = Counter(event.event.id for event in tail.events if event.event.id.startswith(run))
        assert stored == Counter({event_id(run, number): 1 for number in range(total)})
        mine = [e for e in tail.events if e.container and e.container.id == target.id]
        assert len([e for e in mine if e.event.action == "opened"]) == 1
        assert len([e for e in mine if e.event.action == "docker.pause"]) == 1
        assert [e.message for e in tail.events if e.event.action == "events_lost"] == []
