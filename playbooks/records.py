"""Rows of the ledger, as values. Times are nanoseconds of the wall clock (time.time_ns). Owns no statement."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

RunState = Literal["queued", "running", "waiting", "done", "failed", "suppressed", "merged"]
"""waiting: for a person. suppressed: by cooldown, a busy key or a wrong value; merged: into the run `reason` names."""

UNFINISHED: tuple[RunState, ...] = ("queued", "running", "waiting")


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Run(_Record, frozen=True, kw_only=True):
    """One playbook answering one alert. There is never a second run for the same pair."""

    id: str
    alert_id: str
    alert: bytes
    """The alert, encoded: whatever becomes of the store, the run can go on."""
    playbook: str
    revision: str
    mode: str
    state: RunState
    reason: str
    rule: str | None
    container_id: str | None
    container_name: str | None
    key: str | None
    """Of `concurrency`."""
    tripped: bool
    """Beyond `limits`: each change needs approval."""
    created_ns: int
    ended_ns: int | None = None


class StepRecord(_Record, frozen=True, kw_only=True):
    run_id: str
    step_id: str
    uses: str
    claim_id: str
    state: Literal["acting", "waiting", "done"]
    """acting: claimed, so it may have acted. waiting: for a person."""
    outcome: str | None = None
    reason: str = ""
    verified: bool | None = None
    would_change: bool | None = None
    attempts: int = 0
    data: dict[str, Any] = {}
    saved: dict[str, Any] = {}
    begun_ns: int
    acted_ns: int | None = None
    verified_ns: int | None = None
    ended_ns: int | None = None


class UndoRecord(_Record, frozen=True, kw_only=True):
    """How to take one step back. On disk before the step acts."""

    run_id: str
    step_id: str
    uses: str
    parameters: dict[str, Any]
    saved: dict[str, Any]
    container_id: str | None
    due_ns: int | None
    """None: only when a person asks."""
    state: Literal["armed", "done", "failed", "disarmed"] = "armed"
    """done: put back, or nothing was left to put back. disarmed: the step had changed nothing."""
    reason: str = ""
    attempts: int = 0
    ended_ns: int | None = None


class Approval(_Record, frozen=True, kw_only=True):
    id: str
    run_id: str
    step_id: str
    question: str
    asked_ns: int
    deadline_ns: int
    on_timeout: str
    state: Literal["pending", "approved", "denied", "expired"] = "pending"
    by: str | None = None
    decided_ns: int | None = None


class Message(_Record, frozen=True, kw_only=True):
    """One delivery in the outbox. `url`, headers and `sign_with` hold references to secrets, never secrets."""

    id: str
    run_id: str
    step_id: str
    sender: str
    url: str
    headers: dict[str, str]
    body: bytes
    sign_with: str | None
    max_attempts: int | None
    """None: until `give_up_ns`."""
    backoff_s: float
    factor: float
    give_up_ns: int
    state: Literal["pending", "delivered", "dead"] = "pending"
    attempts: int = 0
    next_ns: int
    created_ns: int
    reason: str = ""
    ended_ns: int | None = None


class AuditRow(_Record, frozen=True, kw_only=True):
    seq: int
    at_ns: int
    kind: str
    body: str
    previous: str
    hash: str


def run_id(alert_id: str, playbook: str) -> str:
    """The run's id is its claim: the same alert and playbook give the same run, whatever the revision."""
    return _hash("run", alert_id, playbook)[:20]


def claim_id(alert_id: str, playbook: str, revision: str, step: str) -> str:
    return _hash("claim", alert_id, playbook, revision, step)[:32]


def delivery_id(run: str, step: str) -> str:
    return _hash("delivery", run, step)[:32]


def approval_id(run: str, step: str) -> str:
    return _hash("approval", run, step)[:12]


def response_id(run: str, step: str, phase: str) -> str:
    return _hash("response", run, step, phase)[:32]


def _hash(*parts: str) -> str:
    # The length of each part goes in, so that no two lists of parts give the same bytes.
    return hashlib.sha256(b"".join(b"%d:%s" % (len(b), b) for b in (p.encode() for p in parts))).hexdigest()
