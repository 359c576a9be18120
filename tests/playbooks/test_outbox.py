"""Messages reach their receiver once by id, whatever it does meanwhile, and hold up nobody else."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from scene import Scene, alert, until

from playbooks.action import Delivery
from playbooks.delivery import NotYet
from tocsin.errors import Rejected, RetryLater

ONE = "name: one\nmatch: {rules: [shell]}\nsteps:\n  - {id: tell, uses: probe.postRETRY}\n"


def text(retry: str = "") -> str:
    return ONE.replace("RETRY", retry and f", retry: {retry}")


class Receiver:
    """Answers as `script` says, then takes everything."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.tries: list[str] = []
        self.taken: list[str] = []

    def __call__(self, delivery: Delivery) -> None:
        self.tries.append(delivery.id)
        answer = self.script.pop(0) if self.script else None
        if answer is not None:
            raise answer
        self.taken.append(delivery.id)


def test_it_is_sent_again_until_it_is_taken_with_the_same_id(scene: Callable[..., Scene]) -> None:
    s = scene(text("{attempts: 5, backoff: 10ms}"))
    receiver = Receiver(RetryLater("500"), RetryLater("down"), ValueError("a defect"))
    s.send = receiver
    s.run_of(alert())
    until(lambda: s.ledger.messages("delivered"))
    assert len(receiver.tries) == 4 and len(set(receiver.tries)) == 1
    assert s.ledger.messages("delivered")[0].attempts == 4
    until(lambda: [e for e in s.emitted if e.event.action == "delivered"])


def test_retry_after_is_kept(scene: Callable[..., Scene]) -> None:
    s = scene(text("{attempts: 5, backoff: 1ms}"))
    s.send = Receiver(RetryLater("429", 0.3))
    begun = time.monotonic()
    s.run_of(alert())
    until(lambda: s.ledger.messages("delivered"))
    assert time.monotonic() - begun > 0.3


def test_a_pause_that_was_not_over_is_no_attempt(scene: Callable[..., Scene]) -> None:
    s = scene(text("{attempts: 1}"))
    s.send = Receiver(NotYet("one a second", 0.01), NotYet("one a second", 0.01))
    s.run_of(alert())
    until(lambda: s.ledger.messages("delivered"))
    assert s.ledger.messages("delivered")[0].attempts == 1


@pytest.mark.parametrize("answers", [[Rejected("404")], [RetryLater("500")] * 2])
def test_what_cannot_be_delivered_is_kept_shown_and_can_be_sent_again(
    scene: Callable[..., Scene], answers: list[Exception]
) -> None:
    s = scene(text("{attempts: 2, backoff: 1ms}"))
    s.send = Receiver(*answers)
    s.run_of(alert())
    until(lambda: s.ledger.messages("dead"))
    dead = s.ledger.messages("dead")[0]
    assert dead.reason in ("404", "500")
    until(lambda: [e for e in s.emitted if e.event.action == "undeliverable"])
    s.restart()
    assert s.core.status()["outbox"] == {"dead": 1}
    s.core._outbox.resend(dead.id)
    until(lambda: s.ledger.messages("delivered"))
    with pytest.raises(Rejected):
        s.core._outbox.resend(dead.id)


def test_without_retry_it_is_tried_for_a_day(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    s = scene(text())
    s.send = Receiver(RetryLater("down"))
    s.run_of(alert())
    until(lambda: s.ledger.messages("pending") and s.ledger.messages("pending")[0].attempts == 1)
    message = s.ledger.messages("pending")[0]
    assert message.max_attempts is None
    assert 23.9 < (message.give_up_ns - time.time_ns()) / 3600e9 <= 24


def test_a_receiver_that_hangs_blocks_nobody_else(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    both = (
        "name: one\nmatch: {rules: [shell]}\nsteps:\n"
        "  - {id: slow, uses: probe.post, with: {url: 'http://slow.test/'}}\n"
        "  - {id: fast, uses: probe.post, with: {url: 'http://fast.test/'}}\n"
    )
    s = scene(both)
    taken: Counter[str] = Counter()

    def send(delivery: Delivery) -> None:
        if "slow" in delivery.url:
            release.wait(10)
        taken[delivery.url] += 1

    s.send = send
    for _ in range(5):
        s.take(alert())
    until(lambda: taken["http://fast.test/"] == 5)
    assert taken["http://slow.test/"] == 0
    release.set()
    until(lambda: taken["http://slow.test/"] == 5)


def test_more_receivers_than_lanes_are_all_served(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbooks.outbox.MAX_LANES", 2)
    steps = "".join(f"  - {{id: s{n}, uses: probe.post, with: {{url: 'http://r{n}.test/'}}}}\n" for n in range(6))
    s = scene("name: one\nmatch: {rules: [shell]}\nsteps:\n" + steps)
    s.send = lambda delivery: time.sleep(0.02)
    s.run_of(alert())
    until(lambda: len(s.ledger.messages("delivered")) == 6)


def test_what_was_not_sent_when_it_stopped_is_sent_after_the_start(scene: Callable[..., Scene]) -> None:
    s = scene(text("{attempts: 9, backoff: 300ms}"))
    s.send = Receiver(RetryLater("down"))
    s.run_of(alert())
    until(lambda: s.ledger.messages("pending") and s.ledger.messages("pending")[0].attempts)
    s.close()
    receiver = s.send = Receiver()
    s.open()
    until(lambda: s.ledger.messages("delivered"))
    assert len(receiver.taken) == 1


def test_a_send_that_never_returns_is_given_up(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbooks.outbox.SEND_TIMEOUT_S", 0.05)
    release = threading.Event()
    s = scene(text("{attempts: 2, backoff: 1ms}"))
    s.send = lambda delivery: release.wait(10)
    s.run_of(alert())
    until(lambda: s.ledger.messages("dead"))
    assert "no answer within" in s.ledger.messages("dead")[0].reason
    release.set()


def test_a_message_made_twice_is_one_message(scene: Callable[..., Scene]) -> None:
    """A step that died after it posted posts again; the delivery's id makes it one."""
    s = scene(text())
    run = s.run_of(alert())
    until(lambda: s.ledger.messages("delivered"))
    message = s.ledger.messages("delivered")[0]
    with s.ledger.writing() as tx:
        assert not tx.add(message)
    assert message.run_id == run.id
