from __future__ import annotations

from collections.abc import Sequence

import pytest

from ecs_mappings.event import UNSET, Event, Tocsin, decode
from ecs_mappings.event import Loss as LossDetail
from forwarder.losses import Loss, Losses
from tocsin.errors import RetryLater


def loss(first: int, end: int, sink: str = "store", count: int | None = -1, reason: str = "full") -> Loss:
    known = end - first if count == -1 else count
    return Loss("events", sink, reason, first, end, known, first * 10**9, end * 10**9)


def told(losses: Losses, offset: int = 0) -> list[Event]:
    lines: list[bytes] = []

    def append(new: Sequence[bytes]) -> int:
        lines.extend(new)
        return offset

    losses.report(append)
    return [decode(line) for line in lines]


def detail(event: Event) -> LossDetail:
    assert isinstance(event.tocsin, Tocsin) and isinstance(event.tocsin.loss, LossDetail)
    return event.tocsin.loss


def test_losses_of_one_kind_become_one_event() -> None:
    losses = Losses()
    losses.add(loss(0, 10))
    losses.add(loss(10, 15))
    losses.add(loss(3, 4, sink="correlator"))
    events = told(losses)
    assert [(detail(e).sink, detail(e).count, detail(e).stage) for e in events] == [
        ("store", 15, "spool"),
        ("correlator", 1, "spool"),
    ]
    first = events[0].event
    assert (first.action, first.dataset) == ("events_lost", "tocsin.sensor")
    assert first.start is not UNSET and first.start.timestamp() == 0
    assert first.end is not UNSET and first.end.timestamp() == 15
    assert told(losses) == []
    assert losses.count("events", "store") == 15


def test_the_id_is_derived() -> None:
    assert loss(0, 10).event().event.id == loss(0, 10).event().event.id != loss(0, 11).event().event.id


def test_an_unknown_number_stays_unknown() -> None:
    losses = Losses()
    losses.add(loss(0, 1, count=None))
    losses.add(loss(5, 7))
    assert [detail(e).count for e in told(losses)] == [UNSET, 2]


def test_what_cannot_be_told_now_is_told_later() -> None:
    losses = Losses()
    losses.add(loss(0, 10))

    def full(lines: Sequence[bytes]) -> int:
        losses.add(loss(10, 12))
        raise RetryLater("full")

    with pytest.raises(RetryLater):
        losses.report(full)
    assert [detail(e).count for e in told(losses)] == [12]


def test_a_loss_whose_event_is_lost_is_told_again_as_it_was() -> None:
    losses = Losses()
    losses.add(loss(0, 10))
    losses.add(loss(3, 4, sink="correlator"))
    before = told(losses, offset=100)
    losses.retell(range(90, 101))
    losses.retell(range(90, 101))
    losses.add(loss(90, 101))
    after = told(losses, offset=200)
    assert [detail(e).count for e in after] == [10, 11]
    assert after[0].event.id == before[0].event.id and after[0].event.start == before[0].event.start
    assert losses.count("events", "store") == 21
    losses.retell(range(101, 102))
    losses.retell(range(200, 201))
    assert [detail(e).sink for e in told(losses)] == ["correlator", "store"]
