"""The demo reads its story from the store's documents alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ecs_mappings.event import Event
from tocsin.demo import timeline
from tocsin.demo.report import Report
from tocsin.demo.scene import Attack

KERNEL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXPECTED = Attack("a-shell", "web", "somebody opens a shell")


def event(id: str, dataset: str, action: str, tocsin: dict[str, Any], **more: Any) -> Event:
    kind = "alert" if dataset == "tocsin.alert" else "event"
    meta = {"id": id, "category": ["process"], "type": ["info"], "action": action, "dataset": dataset, "kind": kind}
    return msgspec.convert(
        {"@timestamp": KERNEL, "ecs": {}, "event": meta, "tocsin": tocsin, **more}, Event, strict=False
    )


def alert(id: str = "a1", rule: str = "a-shell", container: str = "web") -> Event:
    detail = {
        "group": id, "key": [], "severity": "high", "count": 1, "events": ["e1"], "first_seen": KERNEL,
        "last_seen": KERNEL,
    }  # fmt: skip
    latency = {"captured_ms": 2.0, "matched_ms": 3.0}
    return event(
        id, "tocsin.alert", "opened", {"alert": detail, "latency": latency},
        rule={"id": rule}, container={"id": "ab" * 32, "name": container},
    )  # fmt: skip


def response(id: str, step: str, *, verified: bool | None = True, undo_of: str | None = None, ms: float = 10) -> Event:
    reference: dict[str, Any] = {
        "name": "contain", "revision": "1", "run_id": "r1", "step": step, "mode": "enforce", "outcome": "changed",
        "alert_id": "a1",
    }  # fmt: skip
    reference |= {} if verified is None else {"verified": verified}
    reference |= {} if undo_of is None else {"undo_of": undo_of}
    latency = {"decided_ms": ms, "acted_ms": ms + 1} | ({} if verified is None else {"verified_ms": ms + 2})
    return event(id, "tocsin.response", "docker.pause", {"playbook": reference, "latency": latency})


def stored(ms: float) -> dict[str, int]:
    return {"a1": int((KERNEL + timedelta(milliseconds=ms)).timestamp() * 1000) * 1_000_000}


def test_every_hop_of_an_alert_that_was_answered() -> None:
    [line] = timeline.read([alert(), response("s1", "freeze")], stored(5))
    assert line.latency_ms == {
        "captured": 2.0, "stored": 5.0, "matched": 3.0, "decided": 10.0, "acted": 11.0, "verified": 12.0,
    }  # fmt: skip
    assert Report([EXPECTED], [line], webhooks=1).json() == {
        "ok": True,
        "alerts": [{"rule": "a-shell", "container": "web", "latency_ms": line.latency_ms}],
        "steps": [{"playbook": "contain", "step": "freeze", "outcome": "changed", "verified": True}],
        "undone": 0,
        "false_alerts": 0,
        "events": 0,
        "lost": 0,
        "webhooks": 1,
    }


def test_the_step_that_changed_something_gives_the_times_not_the_message_before_it() -> None:
    [line] = timeline.read([alert(), response("s0", "tell", verified=None, ms=4), response("s1", "freeze")], stored(5))
    assert line.latency_ms["verified"] == 12.0


def test_of_an_alert_that_only_sends_messages_the_arrival_verifies() -> None:
    arrived = (KERNEL + timedelta(milliseconds=30)).timestamp()
    [line] = timeline.read([alert(), response("s0", "tell", verified=None)], stored(5), lambda step: arrived)
    assert line.latency_ms["acted"] == 11.0
    assert line.latency_ms["verified"] == 30.0
    assert line.steps[0].verified


def test_an_undo_is_no_step() -> None:
    [line] = timeline.read([alert(), response("s1", "freeze"), response("u1", "freeze", undo_of="freeze")], stored(5))
    assert (len(line.steps), len(line.undone)) == (1, 1)


def test_says_why_it_is_not_ok() -> None:
    lines = timeline.read([alert(), alert("a2", container="worker"), response("s1", "freeze", verified=False)], {})
    report = Report([EXPECTED, Attack("a-scan", "attacker", "")], lines, lost=3)
    verdict = report.json()
    assert not verdict["ok"]
    assert verdict["false_alerts"] == 1
    text = "\n".join(verdict["reasons"])
    assert "0 alerts of a-scan for attacker" in text
    assert "contain freeze ended changed, verified False" in text
    assert "a-shell for web was never stored" in text
    assert "false alert: a-shell for worker" in text
    assert "3 events were lost" in text
