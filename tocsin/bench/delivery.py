"""Events posted to the forwarder as fast as it takes them, until the store holds them all; beside the bare store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from store import Query, Store
from tocsin.bench import Figure
from tocsin.errors import TocsinError
from tocsin.lab import runs
from tocsin.lab.instance import Instance
from tocsin.lab.synthetic import Producer, execs

COUNT = 50_000
BATCH = 1000
WARM_UP = 5_000
TIMEOUT_S = 300.0


def run(count: int | None, store_url: str, say: Callable[[str], None]) -> Sequence[Figure]:
    total = count or COUNT
    name = runs.new()
    with Instance({"store": {"url": store_url, "namespace": "bench"}}) as tocsin:
        store = tocsin.store()
        _bare(store, execs(f"{name}-warm", WARM_UP))
        say(f"{total} events straight into the store: what it gives without us")
        bare_s = _bare(store, execs(f"{name}-bare", total))
        say(f"{total} events through forwarder and spool into store and correlator")
        taken_s, stored_s = _through(tocsin, store, execs(f"{name}-chain", total), total)
        store.close()
    return [
        Figure("taken by the forwarder", total / taken_s, "events/s"),
        Figure("stored", total / stored_s, "events/s", ceiling=total / bare_s),
    ]


def _bare(store: Store, records: Iterator[bytes]) -> float:
    """Seconds to write all records; making them does not count."""
    batches = list(iter(lambda: list(itertools.islice(records, BATCH)), []))
    begun = time.monotonic()
    for batch in batches:
        store.write(batch)
    return time.monotonic() - begun


def _through(tocsin: Instance, store: Store, records: Iterator[bytes], total: int) -> tuple[float, float]:
    """Seconds until all were taken, and until all were stored."""
    made = list(records)
    before = store.count(_everything)
    begun = time.monotonic()
    Producer(tocsin, rate_per_s=1e9, batch=BATCH).send(iter(made))
    taken = time.monotonic() - begun
    while store.count(_everything) - before < total:
        if time.monotonic() - begun > TIMEOUT_S:
            raise TocsinError(f"only {store.count(_everything) - before} of {total} were stored within {TIMEOUT_S:g} s")
        time.sleep(0.05)
        store.refresh()
    return taken, time.monotonic() - begun


_everything = Query(datasets=["tocsin.process"])
