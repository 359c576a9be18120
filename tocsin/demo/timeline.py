"""What happened to each alert, hop by hop, read from the store's own documents. Pure: decides nothing, asks nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType

from ecs_mappings.event import Event, Latency

HOPS = ("captured", "stored", "matched", "decided", "acted", "verified")
"""In the order of the story; each counts from the kernel time of the event that completed the alert."""


@dataclass
class Step:
    playbook: str
    name: str
    action: str
    run_id: str
    outcome: str
    verified: bool | None
    """None of an action that changes no container: Tocsin itself does not look again."""
    latency: Latency | UnsetType


Prove = Callable[[Step], float | None]
"""When (time.time()) somebody outside saw the effect of a step; None when nobody has."""


@dataclass
class Line:
    """One alert and what was done about it."""

    id: str
    rule: str
    container: str
    latency_ms: dict[str, float | None]
    steps: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)

    @property
    def acted(self) -> bool:
        """A change was made and seen by a second look."""
        return any(step.verified for step in self.steps)


def read(events: Sequence[Event], stored: Mapping[str, int], prove: Prove = lambda _: None) -> list[Line]:
    """One line for each opened alert, in their order.

    `stored`: alert id -> time.time_ns() when the store had taken it, as the forwarder's status tells. `prove` is asked
    about each step that Tocsin does not verify by itself.
    """
    alerts = [event for event in events if event.event.kind == "alert" and event.event.action == "opened"]
    lines = {alert.event.id: _line(alert) for alert in alerts}
    for event in events:
        if event.event.dataset == "tocsin.response":
            _add_step(lines, event)
    for alert in alerts:
        line = lines[alert.event.id]
        _time_steps(line)
        if alert.event.id in stored:
            line.latency_ms["stored"] = _since(alert, stored[alert.event.id] / 1e9)
        for step in line.steps:
            if step.verified is None and (proven := prove(step)) is not None:
                step.verified = True
                if line.latency_ms["verified"] is None:
                    line.latency_ms["verified"] = _since(alert, proven)
    return list(lines.values())


def _line(alert: Event) -> Line:
    latency = alert.tocsin.latency if alert.tocsin else UNSET
    return Line(
        alert.event.id,
        (alert.rule.id if alert.rule else UNSET) or "",
        (alert.container.name if alert.container else UNSET) or "",
        {**dict.fromkeys(HOPS), "captured": _hop(latency, "captured"), "matched": _hop(latency, "matched")},
    )


def _since(alert: Event, moment: float) -> float:
    """Milliseconds; an alert's @timestamp is the kernel's time of the event that completed it."""
    return _rounded((moment - alert.timestamp.timestamp()) * 1000)


def _add_step(lines: Mapping[str, Line], event: Event) -> None:
    reference = event.tocsin.playbook if event.tocsin is not UNSET else UNSET
    if reference is UNSET or reference.alert_id is UNSET or reference.alert_id not in lines:
        return
    assert event.tocsin is not UNSET
    if event.event.action == "delivered":  # of a step that has its own event, from when it was queued
        return
    line = lines[reference.alert_id]
    verified = None if reference.verified is UNSET else reference.verified
    step = Step(
        reference.name, reference.step, event.event.action, reference.run_id, reference.outcome, verified,
        event.tocsin.latency,
    )  # fmt: skip
    (line.steps if reference.undo_of is UNSET else line.undone).append(step)


def _time_steps(line: Line) -> None:
    """The hops after the match are those of the first step that changed something and looked again, or else any."""
    step = next((s for s in line.steps if s.verified), next(iter(line.steps), None))
    if step is not None:
        for hop in ("decided", "acted", "verified"):
            line.latency_ms[hop] = _hop(step.latency, hop)


def _hop(latency: Latency | UnsetType, hop: str) -> float | None:
    if latency is UNSET:
        return None
    value: float | UnsetType = getattr(latency, f"{hop}_ms")
    return None if value is UNSET else _rounded(value)


def _rounded(value: float) -> float:
    return round(value, 1)
