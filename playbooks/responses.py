"""What playbooks did, as events of the dataset tocsin.response. Owns their shape and their way to the forwarder."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec import UNSET, UnsetType

from ecs_mappings.event import (
    Ecs,
    Error,
    Event,
    EventMeta,
    Latency,
    PlaybookRef,
    Tocsin,
    encode,
)
from playbooks.audit import AuditFile
from playbooks.ledger import Ledger
from playbooks.records import Run, StepRecord, response_id
from tocsin.errors import Rejected, RetryLater

log = logging.getLogger(__name__)

DATASET = "tocsin.response"
MAX_REASON_CHARS = 1000
BATCH = 200
_OUTCOMES = {
    "changed": "success",
    "unchanged": "success",
    "failed": "failure",
    "denied": "failure",
    "timeout": "failure",
}

Emit = Callable[[Sequence[bytes]], None]
"""Hands encoded events, one line each without newline, to the forwarder. RetryLater: again; Rejected: never."""


def of_step(run: Run, alert: Event, step: StepRecord, decided_ns: int, *, undo_of: str | None = None) -> bytes:
    """The event of a step that ended, or (with `undo_of`) of its being taken back."""
    phase = "undo" if undo_of else "waiting" if step.state == "waiting" else "step"
    return _event(
        run,
        alert,
        step,
        id=response_id(run.id, step.step_id, phase if phase != "undo" else f"undo:{step.begun_ns}"),
        action="approval_requested" if phase == "waiting" else step.uses,
        undo_of=undo_of,
        latency=UNSET if undo_of or phase == "waiting" else _latency(alert, step, decided_ns),
    )


def of_run(run: Run, alert: Event) -> bytes:
    """The event of a run that was not started, with the reason."""
    step = StepRecord(
        run_id=run.id, step_id="run", uses=run.state, claim_id="", state="done", outcome="skipped", reason=run.reason,
        begun_ns=run.created_ns, ended_ns=run.created_ns,
    )  # fmt: skip
    return _event(run, alert, step, id=response_id(run.id, "run", run.state), action=run.state)


def of_delivery(run: Run, alert: Event, step_id: str, delivered: bool, reason: str, begun_ns: int) -> bytes:
    """The event of a message that a receiver took, or that went to the dead letters."""
    action = "delivered" if delivered else "undeliverable"
    step = StepRecord(
        run_id=run.id, step_id=step_id, uses=action, claim_id="", state="done",
        outcome="changed" if delivered else "failed", reason=reason, begun_ns=begun_ns, ended_ns=time.time_ns(),
    )  # fmt: skip
    # A dead letter that is sent again later is another event.
    return _event(run, alert, step, id=response_id(run.id, step_id, f"{action}:{begun_ns}"), action=action)


def _event(
    run: Run,
    alert: Event,
    step: StepRecord,
    *,
    id: str,
    action: str,
    undo_of: str | None = None,
    latency: Latency | UnsetType = UNSET,
) -> bytes:
    outcome = step.outcome or "waiting"
    reason = step.reason[:MAX_REASON_CHARS]
    ended_ns = step.ended_ns or time.time_ns()
    type_ = {"changed": "change", "denied": "denied"}.get(outcome, "info")
    event = Event(
        timestamp=_time(ended_ns),
        ecs=Ecs(),
        event=EventMeta(
            id=id,
            category=["configuration"],
            type=[type_],
            action=action,
            dataset=DATASET,
            outcome=_OUTCOMES.get(outcome, "unknown"),
            duration=max(0, ended_ns - step.begun_ns),
            reason=reason or UNSET,
            start=_time(step.begun_ns),
            end=_time(ended_ns),
        ),
        message=f"{run.playbook}/{step.step_id}: {action} {outcome}" + (f", {reason}" if reason else ""),
        host=alert.host,
        container=alert.container,
        rule=alert.rule,
        error=Error(message=reason) if outcome in ("failed", "timeout", "denied") else UNSET,
        tocsin=Tocsin(
            latency=latency,
            playbook=PlaybookRef(
                name=run.playbook,
                revision=run.revision,
                run_id=run.id,
                step=step.step_id,
                mode=run.mode,
                outcome=outcome,
                verified=UNSET if step.verified is None else step.verified,
                would_change=UNSET if step.would_change is None else step.would_change,
                undo_of=undo_of or UNSET,
                alert_id=run.alert_id,
            ),
        ),
    )
    return encode(event)


def _latency(alert: Event, step: StepRecord, decided_ns: int) -> Latency:
    before = alert.tocsin.latency if alert.tocsin is not UNSET else UNSET
    kernel_ms = alert.timestamp.timestamp() * 1e3

    def since(ns: int | None) -> float | UnsetType:
        return UNSET if ns is None else round(ns / 1e6 - kernel_ms, 3)

    return Latency(
        captured_ms=UNSET if before is UNSET else before.captured_ms,
        matched_ms=UNSET if before is UNSET else before.matched_ms,
        decided_ms=since(decided_ns),
        acted_ms=since(step.acted_ns),
        verified_ms=since(step.verified_ns),
    )


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


class Emitter:
    """Takes response events and audit rows out of the ledger, off the live path, in order.

    At least once: after a crash some events go again, with the same id. Nothing is dropped while the forwarder is away.
    """

    def __init__(self, ledger: Ledger, emit: Emit, audit_file: AuditFile) -> None:
        self._ledger = ledger
        self._emit = emit
        self._audit_file = audit_file
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="emitter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def notify(self) -> None:
        """Something new is in the ledger."""
        self._wake.set()

    def stop(self) -> None:
        """One last attempt for what is left; then it stays in the ledger for the next start."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        pause_s = 0.0
        while True:
            self._wake.wait()
            self._wake.clear()
            stopping = self._stopped.is_set()
            try:
                self._audit()
                while self._send_batch():
                    pause_s = 0.0
            except RetryLater as e:
                pause_s = min(5.0, max(0.1, pause_s * 2)) if e.after_s is None else min(e.after_s, 60.0)
                log.warning("response events wait: %s", e)
                self._stopped.wait(pause_s)
                self._wake.set()
            except Exception:
                log.exception("response events wait")
                self._stopped.wait(1)
                self._wake.set()
            if stopping:
                return

    def _audit(self) -> None:
        while rows := self._ledger.audit_rows(after=self._audit_file.last_seq):
            self._audit_file.append(rows)

    def _send_batch(self) -> bool:
        batch = self._ledger.responses(BATCH)
        if not batch:
            return False
        try:
            self._emit([line for _, line in batch])
        except Rejected:
            self._send_one_by_one(batch)
        self._ledger.emitted(batch[-1][0])
        return True

    def _send_one_by_one(self, batch: list[tuple[int, bytes]]) -> None:
        for seq, line in batch:
            try:
                self._emit([line])
            except Rejected as e:
                log.error("the forwarder refused a response event: %s", e)
                with self._ledger.writing() as tx:
                    tx.refuse_response(seq, str(e)[:MAX_REASON_CHARS])
            self._ledger.emitted(seq)
