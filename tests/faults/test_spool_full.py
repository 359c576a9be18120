"""A spool that is full drops its oldest records, counts them, and says so as an event."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime

import pytest

from tocsin.lab import runs
from tocsin.lab.instance import Instance
from tocsin.lab.synthetic import Producer, event_id, execs
from tocsin.lab.tail import Tail

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

SPOOL_MIB = 8
TOTAL = 40_000
"""Some 25 MiB."""


def test_what_the_store_did_not_get_is_counted_and_becomes_an_event() -> None:
    begun = datetime.now(UTC)
    run = runs.new()
    with Instance({"forwarder": {"spool_mib": SPOOL_MIB, "retain_s": 0}}) as tocsin:
        store = tocsin.store()
        producer = Producer(tocsin, rate_per_s=1e9, batch=500)
        producer.send(execs(run, 1))
        tail = Tail(store, begun, late_s=600)
        assert tail.until(lambda: any(e.event.id == event_id(run, 0) for e in tail.events), 10)
        database = tocsin.settings.state("store") / "events.db"
        blocker = sqlite3.connect(database, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")  # nobody else can write: the store is away
        producer.send(execs(run, TOTAL - 1, start=1))
        assert producer.sent == TOTAL  # a store that is away never blinds the detection
        time.sleep(1)
        blocker.execute("ROLLBACK")
        blocker.close()

        def told() -> int:
            losses = [e.tocsin.loss for e in tail.events if e.event.action == "events_lost" and e.tocsin]
            return sum(loss.count or 0 for loss in losses if loss and loss.sink == "store")

        def stored() -> set[str]:
            return {e.event.id for e in tail.events if e.event.id.startswith(run)}

        def lost() -> int:
            count: int = tocsin.status("forwarder")["sinks"]["store"]["events"]["lost"]
            return count

        assert tail.until(lambda: 0 < lost() == told(), 30, pause_s=0.5), f"{lost()} were lost, {told()} told"
        assert TOTAL - len(stored()) <= told()  # what else ran on this host was lost too
        assert event_id(run, TOTAL - 1) in stored()  # the oldest went, not the newest
        assert event_id(run, TOTAL // 4) not in stored()
        store.close()
