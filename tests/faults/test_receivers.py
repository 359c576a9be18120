"""Receivers that are down, hang, answer 500 or ask for a pause: nothing is blocked or lost, nothing comes twice."""

from __future__ import annotations

from collections import Counter

import pytest

from tocsin.lab import Lab, responses, runs
from tocsin.lab.instance import Instance
from tocsin.lab.receiver import Answer, Receiver
from tocsin.lab.synthetic import Producer, shell

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

HANGS_S = 12.0
"""Longer than a sender waits."""
TROUBLE = [Answer(500), Answer(429, retry_after_s=2.0), Answer(delay_s=HANGS_S), Answer(503)]
CONTAINED_S = 5.0
DELIVERED_S = 60.0


def test_a_message_waits_for_its_receiver_and_nothing_waits_for_the_message() -> None:
    receiver = Receiver(lambda n: TROUBLE[n] if n < len(TROUBLE) else Answer())
    with Lab() as lab, Instance(environ=responses.secrets(receiver), playbooks=responses.scoped(lab.run)) as tocsin:
        targets = [lab.container(f"target{n}") for n in range(2)]
        run = runs.new()
        records = (shell(run, n, t.id, t.name, {runs.LABEL: lab.run}) for n, t in enumerate(targets))
        Producer(tocsin, rate_per_s=1000).send(records)
        for target in targets:  # nobody listens yet
            target.wait_for("paused", timeout_s=CONTAINED_S)
        with receiver:
            assert tocsin.settle(DELIVERED_S)
            # Who gave up on a hanging receiver cannot know that it was heard, and sends the same id again.
            ids = Counter(message.id for message in receiver.accepted() if not message.answer.delay_s)
            assert sorted(ids.values()) == [1, 1]
            assert all(message.signed for message in receiver.received)
            assert {message.id for message in receiver.received} == set(ids)
