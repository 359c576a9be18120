"""One contract for every sink, each with its real receiver; and the receivers that are dead, hang or answer 500."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pkgutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import forwarder.sinks
from forwarder.limits import Limits
from forwarder.sinks import Outcome, Sink
from forwarder.sinks.correlator import CorrelatorSink
from forwarder.sinks.memory import MemorySink
from forwarder.sinks.playbooks import PlaybooksSink
from forwarder.sinks.store import StoreSink
from tocsin.errors import Rejected, RetryLater
from tocsin.link import Client, Reply, Request, Routes


@dataclass
class Document:
    outcome: str
    reason: str = ""


@dataclass
class Shelf:
    """A store, as far as the forwarder can see."""

    kept: list[bytes] = field(default_factory=list)
    bad: bytes = b"bad"
    away: bool = False

    def write(self, documents: Sequence[bytes]) -> list[Document]:
        if self.away:
            raise RetryLater("the store is away")
        out = []
        for document in documents:
            outcome = "rejected" if self.bad in document else "exists" if document in self.kept else "created"
            if outcome == "created":
                self.kept.append(document)
            out.append(Document(outcome, "mapping conflict" if outcome == "rejected" else ""))
        return out


class Receiver:
    """Keeps what is posted, as (path, offset, body); behaves as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, int, bytes]] = []
        self.error: Exception | None = None
        self.hang = threading.Event()
        self.broken = threading.Event()

    def routes(self) -> Routes:
        async def take(path: str, request: Request) -> Reply:
            while self.hang.is_set():
                await asyncio.sleep(0.01)
            if self.error is not None:
                raise self.error
            if self.broken.is_set():
                return Reply(500, b"{}")
            self.got.append((path, request.offset(), request.body))
            return Reply()

        async def events(request: Request) -> Reply:
            return await take("/events", request)

        async def alerts(request: Request) -> Reply:
            return await take("/alerts", request)

        return {("POST", "/events"): events, ("POST", "/alerts"): alerts}

    def lines(self) -> list[bytes]:
        return [line for _, _, body in self.got for line in body.splitlines()]


@dataclass
class Case:
    sink: Sink
    receiver: Any

    def taken(self) -> list[bytes]:
        if isinstance(self.sink, MemorySink):
            return [line for topic in self.sink.topics for _, line in self.sink.taken(topic)]
        return self.receiver.kept if isinstance(self.receiver, Shelf) else self.receiver.lines()


NAMES = sorted(module.name for module in pkgutil.iter_modules(forwarder.sinks.__path__))


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, serve: Any, tmp_path: Path) -> Iterator[Case]:
    name = request.param
    if name == "memory":
        yield Case(MemorySink(), None)
    elif name == "store":
        shelf = Shelf()
        yield Case(StoreSink(shelf), shelf)
    else:
        receiver = Receiver()
        module = importlib.import_module(f"forwarder.sinks.{name}")
        with serve(name, receiver.routes()) as path:
            with contextlib.closing(Client(path, timeout_s=1)) as client:
                yield Case(getattr(module, f"{name.capitalize()}Sink")(client), receiver)


def test_every_record_gets_one_outcome_in_order(case: Case) -> None:
    lines = [b'{"event":{"id":"%d"}}' % n for n in range(20)]
    for topic in case.sink.topics:
        outcomes = case.sink.deliver(topic, 40, lines)
        assert len(outcomes) == 20
        assert all(o is None or o.rejected is None for o in outcomes)
    assert case.taken() == (lines if isinstance(case.receiver, Shelf) else lines * len(case.sink.topics))


def test_the_offset_and_the_topic_arrive(serve: Any) -> None:
    receiver = Receiver()
    with serve("both", receiver.routes()) as path, contextlib.closing(Client(path)) as client:
        CorrelatorSink(client).deliver("events", 12, [b"a", b"b"])
        PlaybooksSink(client).deliver("alerts", 10**12, [b"c"])
    assert receiver.got == [("/events", 12, b"a\nb\n"), ("/alerts", 10**12, b"c\n")]


def test_the_store_names_alerts_and_reasons() -> None:
    sink, lines = StoreSink(Shelf()), [b'{"event":{"id":"a"}}', b"bad", b'{"event":{"id":"a"}}']
    assert sink.deliver("alerts", 0, lines) == [Outcome("a"), Outcome(rejected="mapping conflict"), Outcome("a")]
    assert sink.deliver("events", 0, lines) == [None, Outcome(rejected="mapping conflict"), None]


def test_a_store_that_is_away_is_asked_again() -> None:
    with pytest.raises(RetryLater):
        StoreSink(Shelf(away=True)).deliver("events", 0, [b"a"])


@pytest.mark.parametrize("kind", [CorrelatorSink, PlaybooksSink])
class TestOverASocket:
    def deliver(self, kind: Any, path: Path, timeout_s: float = 0.3) -> None:
        with contextlib.closing(Client(path, timeout_s)) as client:
            kind(client).deliver(kind.topics[0], 0, [b"a"])

    def test_nobody_there(self, kind: Any, tmp_path: Path) -> None:
        with pytest.raises(RetryLater):
            self.deliver(kind, tmp_path / "nobody.sock")

    def test_a_receiver_that_hangs_costs_the_timeout(self, kind: Any, serve: Any) -> None:
        receiver = Receiver()
        with serve("hangs", receiver.routes()) as path:
            receiver.hang.set()
            with pytest.raises(RetryLater):
                self.deliver(kind, path)
            receiver.hang.clear()

    @pytest.mark.parametrize(
        ("error", "expected", "after_s"),
        [(RetryLater("later", 3.5), RetryLater, 3.5), (Rejected("never"), Rejected, None)],
    )
    def test_its_answer_is_told(
        self, kind: Any, serve: Any, error: Exception, expected: type[Exception], after_s: float | None
    ) -> None:
        receiver = Receiver()
        receiver.error = error
        with serve("refuses", receiver.routes()) as path, pytest.raises(expected) as raised:
            self.deliver(kind, path)
        assert getattr(raised.value, "after_s", None) == after_s


def test_a_receiver_dead_then_hanging_then_broken_gets_all_in_the_end(opened: Any, serve: Any, tmp_path: Path) -> None:
    """And meanwhile its troubles are nobody else's."""
    receiver, store = Receiver(), Shelf()
    client = Client(tmp_path / "correlator.sock", timeout_s=0.2)
    sinks = {"correlator": CorrelatorSink(client), "store": StoreSink(store)}
    forwarder = opened(sinks, Limits(max_wait_s=0.05))
    lines = [b'{"n":%d}' % n for n in range(90)]

    def tried(more: int = 2) -> None:
        """The correlator was tried, in vain; the store has all the same taken what there is."""
        before = forwarder.status()["sinks"]["correlator"]["events"]["retries"]
        until(lambda: forwarder.status()["sinks"]["correlator"]["events"]["retries"] >= before + more)
        until(lambda: len(store.kept) == forwarder.status()["topics"]["events"]["next"])

    forwarder.take("events", lines[:30])
    tried()
    receiver.hang.set()
    with serve("correlator", receiver.routes()):
        forwarder.take("events", lines[30:60])
        tried()
        receiver.broken.set()
        receiver.hang.clear()
        forwarder.take("events", lines[60:])
        tried()
        error = forwarder.status()["sinks"]["correlator"]["events"]["error"]
        assert "500" in error["text"] and receiver.got == []
        receiver.broken.clear()
        until(lambda: set(receiver.lines()) == set(lines))
        forwarder.stop(1)
    assert forwarder.status()["sinks"]["correlator"]["events"]["error"] is None
    first_seen = list(dict.fromkeys(receiver.lines()))
    assert first_seen == lines == store.kept


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
