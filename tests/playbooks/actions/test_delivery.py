"""Sending to receivers that hang, refuse, break off and come back: what each answer means, and that nothing is lost."""

from __future__ import annotations

import email.utils
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbooks import delivery
from playbooks.action import Delivery
from playbooks.delivery import MAX_RETRY_AFTER_S, NotYet, Sender, retry_after
from tests.playbooks.actions.receivers import Receiver, answer, close, hang, slowly
from tocsin.errors import ConfigError, Problem, Rejected, RetryLater

TIMEOUT_S = 0.5
VAULT: dict[str, str] = {}


def secrets(name: str) -> str:
    try:
        return VAULT[name]
    except KeyError:
        raise ConfigError([Problem("settings", 0, f"the secret {name!r} is not set")]) from None


@pytest.fixture
def sender() -> Iterator[Sender]:
    VAULT.clear()
    made = Sender(secrets, timeout_s=TIMEOUT_S, slack_interval_s=0.3)
    yield made
    made.close()


def message(url: str, id: str = "d1", **changes: object) -> Delivery:
    values: dict[str, object] = {"id": id, "sender": "webhook.post", "url": url, "body": b'{"a": 1}'}
    return Delivery(**values | changes)  # type: ignore[arg-type]


def test_delivers_with_id_and_headers(sender: Sender) -> None:
    with Receiver() as receiver:
        assert sender.send(message(receiver.url, headers={"X-Team": "blue"})).status == 200
    (taken,) = receiver.taken
    assert taken.body == b'{"a": 1}'
    assert taken.headers["x-tocsin-delivery"] == "d1"
    assert (taken.headers["x-team"], taken.headers["content-type"]) == ("blue", "application/json")
    assert "x-tocsin-signature" not in taken.headers


def test_the_signature_is_over_time_and_body(sender: Sender) -> None:
    VAULT["KEY"] = "k3y\n"
    with Receiver() as receiver:
        sender.send(message(receiver.url, sign_with="${secret:KEY}"))
    (taken,) = receiver.taken
    parts = dict(part.split("=") for part in taken.headers["x-tocsin-signature"].split(","))
    assert abs(time.time() - int(parts["t"])) < 5
    expected = hmac.new(b"k3y", parts["t"].encode() + b"." + taken.body, hashlib.sha256).hexdigest()
    assert parts["v1"] == expected


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_is_taken(sender: Sender, status: int) -> None:
    with Receiver(answer(status)) as receiver:
        assert sender.send(message(receiver.url)).status == status


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_these_mean_later(sender: Sender, status: int) -> None:
    with Receiver(answer(status, b"busy")) as receiver, pytest.raises(RetryLater, match=f"answered {status}: busy"):
        sender.send(message(receiver.url))


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 410, 413, 422])
def test_these_mean_never_and_no_redirect_is_followed(sender: Sender, status: int) -> None:
    with Receiver(answer(status, b"no", Location="/other")) as receiver:
        with pytest.raises(Rejected, match=f"answered {status}"):
            sender.send(message(receiver.url))
    assert [t.path for t in receiver.taken] == ["/hook"]


def test_retry_after_is_passed_on_and_closes_the_receiver(sender: Sender) -> None:
    with Receiver(answer(429, Retry_After="1"), answer(503, Retry_After="7")) as receiver:
        with pytest.raises(RetryLater) as e:
            sender.send(message(receiver.url))
        assert e.value.after_s == 1
        with pytest.raises(NotYet) as e:
            sender.send(message(receiver.url, "d2"))
        assert 0 < (e.value.after_s or 0) <= 1
        assert receiver.ids() == ["d1"]
        time.sleep(1.0)
        with pytest.raises(RetryLater) as e:
            sender.send(message(receiver.url))
        assert e.value.after_s == 7


@pytest.mark.parametrize(
    "behaviour",
    [hang, close, slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), slowly(b"x" * 40, 0.02)],
    ids=["hang", "close", "byte by byte", "no http"],
)
def test_a_receiver_that_gives_no_whole_answer_is_later_and_in_time(sender: Sender, behaviour) -> None:
    with Receiver(behaviour) as receiver:
        started = time.monotonic()
        with pytest.raises(RetryLater):
            sender.send(message(receiver.url))
        assert time.monotonic() - started < TIMEOUT_S + 1


def test_the_verdict_counts_not_how_its_explanation_drips(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "EXPLANATION_S", 0.2)
    for head, error in ((b"400 Bad", Rejected), (b"500 Bad", RetryLater)):
        drip = slowly(b"x" * 60, 0.05)
        with Receiver(
            lambda s, h=head, d=drip: (s.sendall(b"HTTP/1.1 %s\r\nContent-Length: 999999\r\n\r\n" % h), d(s))
        ) as r:
            with pytest.raises(error):
                sender.send(message(r.url))
    endless = slowly(b"x" * 60, 0.05)
    with Receiver(lambda s: (s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n"), endless(s))) as r:
        assert sender.send(message(r.url)).took_s < 1


def test_a_huge_explanation_is_cut(sender: Sender) -> None:
    with Receiver(answer(400, b"\x1b[31m" + b"y" * 5_000_000)) as receiver, pytest.raises(Rejected) as e:
        sender.send(message(receiver.url))
    assert len(str(e.value)) < 500
    assert "\x1b" not in str(e.value)


def test_n8n_may_still_be_starting(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver(*[answer(404)] * 3) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/webhook/abc"
        with pytest.raises(NotYet, match="n8n"):
            sender.send(message(url))
        monkeypatch.setattr(delivery, "N8N_NOT_FOUND_S", 0.0)
        with pytest.raises(Rejected):
            sender.send(message(url))
        with pytest.raises(Rejected, match="120 s"):
            sender.send(message(url.replace("/webhook/", "/webhook-test/")))


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "file:///etc/passwd", "//x", "x", "", "http://", "http://[", "http://a b/"]
)
def test_only_http(sender: Sender, url: str) -> None:
    with pytest.raises((Rejected, RetryLater)) as e:
        sender.send(message(url))
    assert isinstance(e.value, Rejected) or url == "http://a b/"


def test_headers_cannot_be_split(sender: Sender) -> None:
    VAULT["TOKEN"] = "a\r\nX-Evil: 1"
    with Receiver() as receiver:
        for value in ("${secret:TOKEN}", "a\nb", "\u202e"):
            with pytest.raises(Rejected):
                sender.send(message(receiver.url, headers={"X-Token": value}))
    assert receiver.taken == []


def test_no_secret_reaches_an_error_or_a_log(sender: Sender, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Receiver(*[answer(s, b"you sent hunter2 to /s3cr3t-path") for s in (400, 500, 302)], hang, close) as receiver:
        VAULT.update(URL=f"http://127.0.0.1:{receiver.port}/s3cr3t-path", TOKEN="hunter2")
        errors = []
        for n in range(5):
            with pytest.raises((Rejected, RetryLater)) as e:
                sender.send(message("${secret:URL}", headers={"X-Token": "Bearer ${secret:TOKEN}"}, id=f"d{n}"))
            errors.append(str(e.value))
    VAULT["URL"] = "http://127.0.0.1:1/s3cr3t-path"
    with pytest.raises(RetryLater) as e:
        sender.send(message("${secret:URL}"))
    errors.append(str(e.value))
    VAULT["URL"] = "gopher://s3cr3t-path"
    with pytest.raises(Rejected) as e:
        sender.send(message("${secret:URL}"))
    told = "\n".join([*errors, str(e.value), caplog.text])
    assert "s3cr3t" not in told and "hunter2" not in told
    assert all("${secret:URL}" in text for text in errors)


def test_a_secret_that_cannot_be_read_keeps_the_message(sender: Sender) -> None:
    with pytest.raises(RetryLater, match="'GONE' is not set"):
        sender.send(message("${secret:GONE}"))


def test_proxies_of_the_environment_are_not_used(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Receiver() as receiver:
        assert sender.send(message(receiver.url)).status == 200


def test_slack_gets_one_message_a_second_and_nobody_else_waits(sender: Sender) -> None:
    with Receiver() as slack, Receiver() as other:
        sender.send(message(slack.url, "s1", sender="slack.send"))
        with pytest.raises(NotYet) as e:
            sender.send(message(slack.url, "s2", sender="slack.send"))
        for n in range(5):
            sender.send(message(other.url, f"o{n}"))
        time.sleep(e.value.after_s or 0)
        sender.send(message(slack.url, "s2", sender="slack.send"))
    assert slack.taken[1].at - slack.taken[0].at >= 0.29
    assert len(other.taken) == 5


def test_a_receiver_that_hangs_holds_up_nobody(sender: Sender) -> None:
    with Receiver(hang, hang, hang) as bad, Receiver() as good:
        hung = [threading.Thread(target=_ignore_later, args=(sender, message(bad.url, f"b{n}"))) for n in range(3)]
        for thread in hung:
            thread.start()
        started = time.monotonic()
        for n in range(10):
            sender.send(message(good.url, f"g{n}"))
        assert time.monotonic() - started < 2 * TIMEOUT_S + 0.2  # one after the other it would be three
        for thread in hung:
            thread.join()


def _ignore_later(sender: Sender, delivery: Delivery) -> None:
    with pytest.raises(RetryLater):
        sender.send(delivery)


def test_nothing_is_lost_and_a_receiver_that_drops_repeats_sees_each_once(sender: Sender) -> None:
    """Sent again by the same id until taken, as by the outbox; the receiver misbehaves in every way, then is away."""
    script = [hang, answer(500), close, answer(429, Retry_After="0"), slowly(b"HTTP/1.1 200 OK\r\n\r\n", 0.1)]
    receiver = Receiver(*script)
    port = receiver.port
    pending = [message(receiver.url, f"d{n}") for n in range(3)]
    pending = _round(sender, pending, 3)
    receiver.close()
    assert len(_round(sender, pending, 2)) == len(pending)
    with Receiver(port=port) as back:
        assert _round(sender, pending, 2) == []
    attempts = receiver.ids() + back.ids()
    assert set(attempts) == {"d0", "d1", "d2"}
    assert {t.body for t in receiver.taken + back.taken} == {b'{"a": 1}'}


def _round(sender: Sender, pending: list[Delivery], times: int) -> list[Delivery]:
    for _ in range(times):
        left = []
        for one in pending:
            try:
                sender.send(one)
            except RetryLater:
                left.append(one)
        pending = left
    return pending


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    "value, expected",
    [
        ("0", 0.0), ("120", 120.0), (" 5 ", 5.0), ("999999999", MAX_RETRY_AFTER_S), ("-1", None), ("1.5", None),
        ("soon", None), ("", None), (None, None), ("9" * 40, None),
        (email.utils.formatdate(NOW + 30, usegmt=True), 30.0), (email.utils.formatdate(NOW - 30, usegmt=True), 0.0),
        (email.utils.formatdate(NOW + 9e6, usegmt=True), MAX_RETRY_AFTER_S),
    ],
)  # fmt: skip
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert retry_after(value, NOW) == expected


@given(st.text(max_size=60))
def test_retry_after_never_fails(value: str) -> None:
    after = retry_after(value, NOW)
    assert after is None or 0 <= after <= MAX_RETRY_AFTER_S
