"""A run while it is being worked on: its ledger row, its playbook, and what templates see. Owns no decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecs_mappings.event import Event, decode
from playbooks.action import Outcome, Secrets
from playbooks.document import Mode
from playbooks.records import Run, StepRecord
from playbooks.schema import Playbook
from playbooks.values import names_of

if TYPE_CHECKING:
    from playbooks.daemon import Daemon

TROUBLE = frozenset({Outcome.FAILED, Outcome.DENIED, Outcome.TIMEOUT})
"""Outcomes that `on_error` is about."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """What actions and the outbox stand on; handed in by the program."""

    daemon: Daemon
    secrets: Secrets
    evidence_dir: Path
    evidence_limit_bytes: int = 1024 * 1024 * 1024
    console_url: str | None = None


@dataclass
class Live:
    """One run in the hands of one thread."""

    run: Run
    playbook: Playbook
    alert: Event
    mode: Mode
    decided_ns: int
    """When the claim was on disk."""
    records: dict[str, StepRecord] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            self.names = names_of(self.alert)
        # What a playbook calls `error` is what went wrong in it, never a field of the alert.
        self.names.pop("error", None)
        self.names["playbook"] = {
            "name": self.playbook.name,
            "revision": self.run.revision,
            "mode": self.mode.value,
            "run_id": self.run.id,
        }
        self.names["steps"] = {}
        for record in self.records.values():
            self.note(record)

    def note(self, record: StepRecord) -> None:
        """From now on the run, and its templates, know this step."""
        self.records[record.step_id] = record
        if record.state == "done":
            self.names["steps"][record.step_id] = _seen_by_templates(record)

    def fail(self, record: StepRecord) -> None:
        self.names["error"] = {
            "step": record.step_id,
            "action": record.uses,
            "outcome": record.outcome,
            "message": record.reason,
        }


def revived(run: Run, playbook: Playbook, ceiling: Mode, records: Iterable[StepRecord]) -> Live:
    """A run of the ledger, ready to go on."""
    mode = Mode(run.mode).lowered_to(ceiling)
    known = {r.step_id: r for r in records}
    return Live(run, playbook, decode(run.alert), mode, run.created_ns, known)


def _seen_by_templates(record: StepRecord) -> dict[str, Any]:
    flags: dict[str, Any] = {outcome.value: record.outcome == outcome for outcome in Outcome}
    # A dry run walks on as if the step had acted, so that it shows the whole way.
    flags["changed"] = flags["changed"] or bool(record.would_change)
    return flags | {
        "outcome": record.outcome,
        "reason": record.reason,
        "verified": bool(record.verified),
        "data": record.data,
    }
