"""The demo's verdict, and its one JSON object. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tocsin.demo.scene import Attack
from tocsin.demo.timeline import HOPS, Line


@dataclass
class Report:
    expected: Sequence[Attack] = ()
    lines: Sequence[Line] = ()
    """Alerts for the demo's own containers; other containers of the host are none of its business."""
    events: int = 0
    lost: int = 0
    webhooks: int = 0
    """Messages that arrived once, rightly signed."""
    reasons: list[str] = field(default_factory=list)
    """Why not all is well, as found on the way."""

    def problems(self) -> list[str]:
        """Empty when all holds."""
        found = list(self.reasons)
        for attack in self.expected:
            fitting = [line for line in self.lines if _fits(line, attack)]
            if len(fitting) != 1:
                found.append(f"{len(fitting)} alerts of {attack.rule} for {attack.container}, there must be 1")
        for line in self.lines:
            missing = [hop for hop in HOPS if line.latency_ms[hop] is None]
            if missing and not self._is_false(line):
                found.append(f"{line.rule} for {line.container} was never {', '.join(missing)}")
            for step in (*line.steps, *line.undone):
                if step.outcome not in ("changed", "unchanged") or step.verified is False:
                    found.append(f"{step.playbook} {step.name} ended {step.outcome}, verified {step.verified}")
        found += [f"false alert: {line.rule} for {line.container}" for line in self.lines if self._is_false(line)]
        if self.lost:
            found.append(f"{self.lost} events were lost")
        return found

    def summary(self) -> str:
        """One sentence for people, when all holds."""
        slowest = max((line.latency_ms["verified"] or 0.0 for line in self.lines), default=0.0)
        undone = sum(len(line.undone) for line in self.lines)
        return (
            f"{len(self.lines)} attacks, {len(self.lines)} alerts, none false; answered and verified within "
            f"{slowest:.0f} ms; {undone} steps undone; {self.webhooks} webhooks; {self.events} events, none lost"
        )

    def json(self) -> dict[str, Any]:
        """The shape is public. `reasons` is there only when something does not hold."""
        problems = self.problems()
        steps = [
            {"playbook": step.playbook, "step": step.name, "outcome": step.outcome, "verified": step.verified}
            for line in self.lines
            for step in line.steps
        ]
        verdict = {
            "ok": not problems,
            "alerts": [
                {"rule": line.rule, "container": line.container, "latency_ms": line.latency_ms} for line in self.lines
            ],
            "steps": steps,
            "undone": sum(len(line.undone) for line in self.lines),
            "false_alerts": sum(map(self._is_false, self.lines)),
            "events": self.events,
            "lost": self.lost,
            "webhooks": self.webhooks,
        }
        return {**verdict, "reasons": problems} if problems else verdict

    def _is_false(self, line: Line) -> bool:
        return not any(_fits(line, attack) for attack in self.expected)


def _fits(line: Line, attack: Attack) -> bool:
    return line.rule == attack.rule and line.container == attack.container
