"""One line about each kind of event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ecs_mappings.event import decode
from tocsin.describe import ago, subject, summary

PLAYBOOK = {"name": "contain", "revision": "0" * 12, "run_id": "r", "step": "freeze", "mode": "enforce"}
ALERT = {"group": "g", "key": [], "severity": "high", "events": [], "count": 2,
         "first_seen": "2025-01-01T00:00:00Z", "last_seen": "2025-01-01T00:00:00Z"}  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "action", "parts", "expected"),
    [
        ("tocsin.process", "exec", {"process": {"command_line": "sh -i"}, "user": {"id": "0"}}, "sh -i as 0"),
        ("tocsin.process", "exec", {"process": {"name": "sh"}, "tocsin": {"process": {"tty": "pts0"}}}, "sh on pts0"),
        ("tocsin.process", "exit", {"process": {"name": "sh", "exit_code": 137}}, "sh ended with 137"),
        ("tocsin.process", "exec", {}, "exec"),
        (
            "tocsin.network", "connect",
            {"process": {"name": "nc"}, "destination": {"ip": "::1", "port": 80}, "network": {"transport": "tcp"},
             "error": {"code": "ECONNREFUSED"}},
            "nc → [::1]:80 tcp (ECONNREFUSED)",
        ),
        ("tocsin.network", "connect", {}, "a process → ? "),
        ("tocsin.alert", "opened", {"rule": {"name": "R"}, "tocsin": {"alert": ALERT}}, "high: R, 2 times"),
        (
            "tocsin.response", "docker.pause",
            {"tocsin": {"playbook": {**PLAYBOOK, "outcome": "failed", "verified": False}}, "event": {"reason": "gone"}},
            "contain/freeze docker.pause → failed, NOT verified: gone",
        ),
        ("tocsin.sensor", "events_lost", {"tocsin": {"loss": {"stage": "kernel", "probe": "exec", "count": 7}}},
         "7 events lost at kernel/exec"),
        ("tocsin.sensor", "heartbeat", {"tocsin": {"sensor": {"captured": 3}}}, "captured 3, lost 0, queued 0"),
        ("tocsin.container", "died", {"container": {"id": "ab" * 32, "image": {"name": "nginx"}}}, "died nginx"),
    ],
)  # fmt: skip
def test_summary(event: Callable[..., bytes], dataset: str, action: str, parts: Any, expected: str) -> None:
    assert summary(decode(event(dataset, action, **parts))) == expected


def test_subject(event: Callable[..., bytes]) -> None:
    assert subject(decode(event())) == "web"
    assert subject(decode(event(container={"id": "ab" * 32}))) == "ab" * 6


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.25, "250 ms"), (1, "1 s"), (300, "5 min"), (5400, "90 min"), (200_000, "2.3 d")]
)
def test_ago(seconds: float, expected: str) -> None:
    assert ago(seconds) == expected
