"""The lab's receiver trusts no signature that is wrong, old or of another body."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest

from playbooks.delivery import DELIVERY_HEADER, SIGNATURE_HEADER, signature
from tocsin.lab.receiver import Answer, Receiver

BODY = json.dumps({"hello": "world"}).encode()


def post(receiver: Receiver, signed: str, body: bytes = BODY) -> int:
    headers = {SIGNATURE_HEADER: signed, DELIVERY_HEADER: "d1"}
    try:
        with urllib.request.urlopen(urllib.request.Request(receiver.url, body, headers), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        with e:
            return e.code


def test_knows_a_right_signature() -> None:
    with Receiver() as receiver:
        assert post(receiver, signature(receiver.secret, BODY, int(time.time()))) == 200
        [message] = receiver.accepted()
        assert (message.id, message.signed, message.body) == ("d1", True, {"hello": "world"})


@pytest.mark.parametrize("wrong", ["key", "time", "body", "form"])
def test_knows_a_wrong_one(wrong: str) -> None:
    with Receiver() as receiver:
        key = "another" if wrong == "key" else receiver.secret
        at = int(time.time()) - (3600 if wrong == "time" else 0)
        signed = "nonsense" if wrong == "form" else signature(key, BODY, at)
        post(receiver, signed, b"{}" if wrong == "body" else BODY)
        assert [message.signed for message in receiver.received] == [False]


def test_misbehaves_as_told() -> None:
    answers = [Answer(500), Answer(429, retry_after_s=2), Answer()]
    with Receiver(lambda n: answers[n]) as receiver:
        assert [post(receiver, "") for _ in answers] == [500, 429, 200]
        assert len(receiver.received) == 3
        assert len(receiver.accepted()) == 1
