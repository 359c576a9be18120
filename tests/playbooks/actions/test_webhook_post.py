from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ecs_mappings.event import decode
from playbooks.action import Outcome, load
from playbooks.references import may_hold_secret
from tocsin.errors import TocsinError

webhook = load("webhook.post")
URL = "${secret:N8N_URL}"


def posted(call, outbox, **parameters):
    p = webhook.parameters(**{"url": URL} | parameters)
    c = call()
    plan = webhook.plan(c, p)
    assert plan.change and outbox.taken == []
    assert webhook.act(c, p, plan).outcome is Outcome.CHANGED
    (delivery,) = outbox.taken
    return delivery


def test_the_alert_as_it_is(call, outbox, alert) -> None:
    delivery = posted(call, outbox)
    assert decode(delivery.body) == alert
    assert (delivery.id, delivery.sender, delivery.url, delivery.sign_with) == ("d1", "webhook.post", URL, None)


def test_the_run(call, outbox) -> None:
    body = json.loads(posted(call, outbox, body="run").body)
    assert body["run"] == {"playbook": "contain", "run_id": "r1", "step": "s1", "delivery": "d1"}
    assert body["alert"]["event"]["id"] == "a1"


def test_a_mapping_of_ones_own(call, outbox) -> None:
    own = {"title": "x", "n": 1, "deep": {"list": [True, None, "<&>"]}}
    assert json.loads(posted(call, outbox, body=own).body) == own


def test_secrets_stay_references(call, outbox) -> None:
    delivery = posted(call, outbox, headers={"X-Token": "Bearer ${secret:N8N_TOKEN}"}, hmac="${secret:N8N_KEY}")
    assert delivery.headers == {"X-Token": "Bearer ${secret:N8N_TOKEN}"}
    assert delivery.sign_with == "${secret:N8N_KEY}"
    fields = webhook.parameters.model_fields
    assert {name for name, field in fields.items() if may_hold_secret(field)} == {"url", "headers", "hmac"}


def test_a_repeat_has_the_same_id_and_body(call, outbox) -> None:
    p = webhook.parameters(url=URL)
    for attempt in (1, 2):
        c = call(attempt=attempt)
        webhook.act(c, p, webhook.plan(c, p))
    first, second = outbox.taken
    assert first == second


def test_a_body_that_is_too_long_fails(call, outbox) -> None:
    p = webhook.parameters(url=URL, body={"a": "x" * 600_000})
    with pytest.raises(TocsinError, match="600008 bytes"):
        webhook.act(call(), p, webhook.plan(call(), p))
    assert outbox.taken == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_event_is_sent_whole(call, outbox, any_event, data: st.DataObject) -> None:
    event = data.draw(any_event)
    p = webhook.parameters(url=URL, body=data.draw(st.sampled_from(["alert", "run"])))
    webhook.act(call(alert=event), p, webhook.plan(call(), p))
    body = outbox.taken[-1].body
    assert (
        decode(body if p.body == "alert" else msgspec.json.decode(body, type=dict[str, msgspec.Raw])["alert"]) == event
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://x"}, {"url": "x"}, {"url": "file:///etc/passwd"}, {"url": "javascript:${secret:X}"},
        {"body": "everything"}, {"body": 5}, {"headers": {"Bad Name": "x"}}, {"headers": {"X-A": "a\r\nX-B: c"}},
        {"headers": {"host": "x"}},
        {"headers": {"x-tocsin-delivery": "x"}}, {"headers": {"X-Tocsin-Signature": "x"}}, {"hmac": "plain"},
        {"method": "GET"},
    ],
)  # fmt: skip
def test_odd_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        webhook.parameters(**{"url": URL} | wrong)
