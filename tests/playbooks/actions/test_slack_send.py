"""Whatever is in the event: Slack takes the message, and nothing in it commands Slack or deceives the eye."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ecs_mappings.event import Container, Endpoint, Event, Host, Image, Process, Rule, User
from playbooks import block_kit as kit
from playbooks.action import Call, Outcome, load
from playbooks.block_kit import harmless

slack = load("slack.send")
NASTY = [
    "<!channel>", "<@U123>", "<https://evil|click>", "&amp;&lt;", "*bold* _it_ ~no~ `code` ```x```", "@here",
    "\x1b[2J", "\u202egnp.exe",
    "\u2066x\u2069", "\u200b", "\r\nSeverity: low", "a\n" * 5000, '"' * 40_000, "\\" * 40_000, "<" * 9000, "&" * 5000,
    "\0", "\u2028", "🔥" * 9000, " ", "\ud800",
]  # fmt: skip
nasty_text = st.one_of(
    st.sampled_from(NASTY), st.text(max_size=200), st.lists(st.sampled_from(NASTY), max_size=4).map("".join)
)
sendable = nasty_text.filter(lambda t: "\ud800" not in t)


def texts(value: Any) -> Iterator[dict[str, str]]:
    """Every text object of a message."""
    if isinstance(value, dict):
        if "text" in value and "type" in value and isinstance(value["text"], str):
            yield value
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def check(body: bytes, *, linked: bool = False) -> dict[str, Any]:
    """Slack's limits, as its documentation and experience give them."""
    assert len(body.decode()) <= 13_200
    message: dict[str, Any] = json.loads(body)
    assert 1 <= len(message["blocks"]) <= 50
    assert 1 <= len(message["text"]) <= 4000
    for block in message["blocks"]:
        if block["type"] == "header":
            assert len(block["text"]["text"]) <= 150
        for one in block.get("fields", []):
            assert len(one["text"]) <= 2000
        assert len(block.get("fields", [])) <= 10
    found = list(texts(message["blocks"]))
    for one in found:
        assert 1 <= len(one["text"]) <= 3000 and one["text"].strip()
    for text in [message["text"], *(one["text"] for one in found if one["type"] == "plain_text")]:
        assert "<" not in text and ">" not in text
        assert re.search(r"&(?!(amp|lt|gt);)", text) is None
        assert {unicodedata.category(c) for c in text if c != "\n"}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    assert sum(one["type"] != "plain_text" for one in found) == linked
    assert (message["mrkdwn"], message["parse"], message["unfurl_links"]) == (False, "none", False)
    return message


@pytest.fixture
def sent(call: Callable[..., Call], outbox: Any) -> Callable[..., dict[str, Any]]:
    def send(alert: Event, text: str = "hello", **changes: Any) -> dict[str, Any]:
        c = call(alert=alert, **changes)
        p = slack.parameters(text=text)
        plan = slack.plan(c, p)
        assert plan.change
        assert slack.act(c, p, plan).outcome is Outcome.CHANGED
        return check(outbox.taken[-1].body, linked="console_url" in changes)

    return send


def test_says_what_happened_where(sent, alert: Event, outbox) -> None:
    message = sent(alert, "A shell was stopped in web")
    assert message["text"] == "[HIGH] Interactive shell in a container: A shell was stopped in web"
    shown = [one["text"] for one in texts(message["blocks"])]
    assert "Container\nweb" in shown
    (delivery,) = outbox.taken
    assert (delivery.id, delivery.sender, delivery.url) == ("d1", "slack.send", "${secret:SLACK_URL}")


def test_links_to_the_console(sent, alert: Event) -> None:
    message = sent(alert, console_url="https://tocsin.example/x/|<b>")
    link = message["blocks"][-1]["text"]["text"]
    assert link == "<https://tocsin.example/x/%7C%3Cb%3E/alerts/a1|Open the alert>"


hard = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@hard
@given(st.data())
def test_any_event_of_the_contract(sent, any_event, data: st.DataObject) -> None:
    sent(data.draw(any_event), data.draw(sendable.filter(bool)))


@hard
@given(a=sendable, b=sendable, c=sendable, d=sendable, text=sendable.filter(bool))
def test_any_text_an_attacker_can_choose(sent, alert: Event, a: str, b: str, c: str, d: str, text: str) -> None:
    hostile = dict(
        rule=Rule(name=a), container=Container(id=b, name=c, image=Image(name=d)), host=Host(name=a),
        process=Process(executable=b, command_line=c), user=User(name=d), destination=Endpoint(ip=a, port=1),
    )  # fmt: skip
    fields = {name: getattr(alert, name) for name in alert.__struct_fields__}
    sent(Event(**fields | hostile), text)


@given(nasty_text, st.integers(2, 300), st.booleans())
def test_harmless_keeps_its_bound_and_its_sense(text: str, limit: int, lines: bool) -> None:
    kept = harmless(text, limit, lines=lines)
    assert 1 <= len(kept) <= limit
    assert re.search(r"&(?!(amp|lt|gt);)", kept) is None and "<" not in kept and ">" not in kept
    assert lines or "\n" not in kept
    kept.encode()


@pytest.mark.parametrize(
    "text, shown",
    [
        ("<!here> &", "&lt;!here&gt; &amp;"), ("a\nb", "a␊b"), ("\x1b[2J", "␛[2J"), ("\u202eexe", "�exe"),
        ("", "-"),
        ("plain", "plain"), ("x" * 21, "x" * 19 + "…"), ("<" * 10, "&lt;&lt;&lt;&lt;…"),
    ],
)  # fmt: skip
def test_harmless(text: str, shown: str) -> None:
    assert harmless(text, 20) == shown


def test_more_than_ten_fields_are_dropped() -> None:
    assert len(kit.fields([("a", "b")] * 12)["fields"]) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"text": ""},
        {"text": "x", "url": "ftp://x"},
        {"text": "x", "url": "hooks.slack.com"},
        {"text": "x", "to": "y"},
    ],
)
def test_odd_parameters_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        slack.parameters(**wrong)
