"""Delivered + counted as lost + still queued = put in. Always."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor import outbox as outbox_module
from sensor.assembler import Line
from sensor.losses import Losses
from sensor.outbox import BATCH_EVENTS, BURST, GATHER_S, Outbox
from tocsin.errors import Rejected, RetryLater

START = datetime(2026, 1, 1, tzinfo=UTC)


def line(number: int, size: int = 10) -> Line:
    return Line(b"%d" % number + b"x" * size, number, START + timedelta(seconds=number))


class Forwarder:
    """Answers from a script; then takes all."""

    def __init__(self, script: list[str]) -> None:
        self.script = script
        self.taken: list[bytes] = []
        self.calls = 0

    def __call__(self, lines: list[bytes]) -> None:
        self.calls += 1
        answer = self.script.pop(0) if self.script else "ok"
        if answer == "later":
            raise RetryLater("busy", 0.0)
        if answer == "never":
            raise Rejected("no")
        self.taken += lines


def test_a_burst_goes_at_once_and_a_steady_stream_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(outbox_module.time, "monotonic", lambda: now)
    forwarder = Forwarder([])
    box = Outbox(forwarder, 10_000, Losses())
    for n in range(BURST):
        box.add(line(n))
        assert box.delay_s() == 0 and box.send()
    for n in range(1000):
        now += 0.001
        box.add(line(n))
        assert box.delay_s() <= GATHER_S + 1e-9
        box.send()
    assert 1 / GATHER_S <= forwarder.calls - BURST <= 1 / GATHER_S + 1
    for n in range(BATCH_EVENTS):
        box.add(line(n))
    assert box.delay_s() == 0 and box.send()  # full: nothing to wait for
    now += BURST * GATHER_S
    box.add(line(0))
    assert box.delay_s() == 0 and box.send()


def test_sends_in_order_in_bounded_batches() -> None:
    forwarder, losses = Forwarder([]), Losses()
    box = Outbox(forwarder, 10_000, losses)
    for n in range(1, 1202):
        box.add(line(n))
    while box.send():
        pass
    assert forwarder.calls == 1201 // BATCH_EVENTS + 1
    assert forwarder.taken == [line(n).data for n in range(1, 1202)]
    assert box.acknowledged == 1201 and box.delivered == 1201


def test_a_batch_is_bounded_in_bytes_but_never_empty() -> None:
    forwarder = Forwarder([])
    box = Outbox(forwarder, 10_000, Losses())
    for n in range(3):
        box.add(line(n, 700_000))
    box.send()
    assert len(forwarder.taken) == 1


def test_while_the_forwarder_is_away_the_oldest_are_dropped_and_counted() -> None:
    losses = Losses()
    box = Outbox(Forwarder(["later"] * 99), 10, losses)
    for n in range(1, 26):
        box.add(line(n))
        box.send()
    assert len(box) == 10 and box.trouble == "busy"
    (fact,) = losses.take()
    assert fact.loss and fact.loss.stage == "queue" and fact.loss.count == 15
    assert (fact.start, fact.end) == (line(1).time, line(15).time)
    assert losses.take() == [] and losses.total == 15


def test_one_refused_event_does_not_take_others_with_it() -> None:
    losses = Losses()
    forwarder = Forwarder(["never", "ok", "never", "ok"])
    box = Outbox(forwarder, 10, losses)
    for n in range(1, 4):
        box.add(line(n))
    box.send()
    assert forwarder.taken == [line(1).data, line(3).data]
    (fact,) = losses.take()
    assert fact.loss and fact.loss.count == 1 and fact.reason == "the forwarder refused it: no"
    assert box.acknowledged == 3


def test_waits_longer_each_time_but_never_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(outbox_module.time, "monotonic", lambda: now)

    def refuse(_: list[bytes]) -> None:
        raise RetryLater("away")

    box = Outbox(refuse, 10, Losses())
    box.add(line(1))
    delays = []
    for _ in range(8):
        assert not box.send()
        delays.append(box.delay_s())
        now += box.delay_s()
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_the_bound_holds_in_bytes_too() -> None:
    losses = Losses()
    box = Outbox(Forwarder([]), 10, losses)
    for n in range(5):
        box.add(line(n, 20_000))
    assert len(box) == 2 and losses.total == 3


@given(
    st.lists(st.sampled_from(["put", "send"]), max_size=60),
    st.lists(st.sampled_from(["ok", "later", "never"]), max_size=40),
    st.integers(1, 8),
)
def test_nothing_is_lost_silently(steps: list[str], script: list[str], limit: int) -> None:
    forwarder, losses, put = Forwarder(script), Losses(), 0
    box = Outbox(forwarder, limit, losses)
    for step in steps:
        if step == "put":
            put += 1
            box.add(line(put))
        else:
            box.send()
        assert len(box) <= limit
        assert len(forwarder.taken) + losses.total + len(box) == put
        assert box.delivered == len(forwarder.taken)
    sent = [int(x.rstrip(b"x")) for x in forwarder.taken]
    assert sent == sorted(set(sent))
    assert sum(f.loss.count for f in losses.take() if f.loss and isinstance(f.loss.count, int)) == losses.total


def test_losses_add_up_by_place() -> None:
    losses = Losses()

    def at(s: int) -> datetime:
        return START + timedelta(seconds=s)

    losses.add("kernel", "exec", 2, at(1), at(2), "full")
    losses.add("kernel", "exec", 3, at(4), at(5), "full")
    losses.add("kernel", "exit", 1, at(0), at(1), "full")
    facts = losses.take()
    assert [(f.loss.probe, f.loss.count, f.start, f.end) for f in facts if f.loss] == [
        ("exec", 5, at(1), at(5)),
        ("exit", 1, at(0), at(1)),
    ]
    assert losses.by_probe == {"exec": 5, "exit": 1}
