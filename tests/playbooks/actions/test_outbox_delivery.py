"""Outbox and sender together, against receivers that misbehave: nothing lost, nobody held up, each id taken once."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from playbooks.action import Delivery
from playbooks.delivery import Sender
from playbooks.document import Retry
from playbooks.ledger import Ledger
from playbooks.outbox import Outbox, message_of
from playbooks.threads import Timers
from tests.playbooks.actions.receivers import Receiver, answer, close, hang, slowly

SOON = Retry(attempts=10, backoff="200ms", factor=1)


class Post:
    """An outbox with a real sender over one ledger; restart() is what comes after a stop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open()

    def _open(self) -> None:
        self.ledger = Ledger(self._directory)
        self.sender = Sender(_no_secrets, timeout_s=0.5, slack_interval_s=0.2)
        self.timers = Timers()
        self.outbox = Outbox(self.ledger, self.sender.send, _no_secrets, self.timers, lambda: None)
        self.timers.start()
        self.outbox.recover()

    def put(self, url: str, *ids: str, sender: str = "webhook.post") -> None:
        now = time.time_ns()
        made = [message_of(Delivery(id=id, sender=sender, url=url, body=b"{}"), "r1", id, SOON, now) for id in ids]
        with self.ledger.writing() as tx:
            for message in made:
                tx.add(message)
        self.outbox.posted(made)

    def states(self) -> dict[str, str]:
        found = [m for state in ("pending", "delivered", "dead") for m in self.ledger.messages(state)]
        return {m.id: m.state for m in found}

    def close(self) -> None:
        self.outbox.stop(2)
        self.timers.stop()
        self.sender.close()
        self.ledger.close()

    def restart(self) -> None:
        self.close()
        self._open()


def _no_secrets(name: str) -> str:
    raise AssertionError(name)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path / "ledger")
    yield made
    made.close()


def until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


BAD = {
    "hangs": [hang, hang],
    "fails": [answer(500), answer(502), answer(408)],
    "asks": [answer(429, Retry_After="1"), answer(503, Retry_After="1")],
    "breaks": [close, close, close],
    "drips": [slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")],
}


def test_every_message_arrives_and_the_good_receiver_never_waits(post: Post) -> None:
    receivers = {name: Receiver(*script) for name, script in BAD.items()}
    with Receiver() as good:
        for name, receiver in receivers.items():
            post.put(receiver.url, f"{name}-1", f"{name}-2")
        started = time.monotonic()
        post.put(good.url, *(f"good-{n}" for n in range(10)))
        until(lambda: len(good.taken) == 10)
        assert time.monotonic() - started < 1.2
        until(lambda: set(post.states().values()) == {"delivered"})
    for name, receiver in receivers.items():
        receiver.close()
        assert set(receiver.ids()) == {f"{name}-1", f"{name}-2"}
        # The last two requests are those that got their 200: one for each id.
        assert sorted(receiver.ids()[-2:]) == [f"{name}-1", f"{name}-2"]
    assert sorted(good.ids()) == sorted(f"good-{n}" for n in range(10))


def test_a_receiver_that_is_down_gets_all_once_it_is_up_even_after_a_restart(post: Post) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    post.put(f"http://127.0.0.1:{port}/hook", "a", "b", "c")
    until(lambda: all(m.attempts for m in post.ledger.messages("pending")))
    post.restart()
    with Receiver(port=port) as receiver:
        until(lambda: set(post.states().values()) == {"delivered"})
    assert sorted(receiver.ids()) == ["a", "b", "c"]


def test_slack_gets_its_rate_and_a_refusal_is_kept_as_a_dead_letter(post: Post) -> None:
    with Receiver() as slack, Receiver(answer(400, b"invalid_payload")) as strict:
        post.put(slack.url, *"abcd", sender="slack.send")
        post.put(strict.url, "no")
        until(lambda: "pending" not in post.states().values())
    assert post.states() == dict.fromkeys("abcd", "delivered") | {"no": "dead"}
    assert "invalid_payload" in post.ledger.messages("dead")[0].reason
    times = [t.at for t in slack.taken]
    # The rate holds where messages leave: on a busy machine one arrives late, and only its neighbours move nearer.
    assert times[-1] - times[0] >= 3 * 0.2 - 0.1
