"""Takes steps back: when their time has come, or when a person asks. Owns when, and how often; the action knows how.

What is armed is in the ledger before its step acts, so it is taken back though the process died, was stopped for a day,
or never learned how the step ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ecs_mappings.event import decode
from playbooks import action as actions
from playbooks.action import Call, Outcome, Result
from playbooks.daemon import Gone
from playbooks.halt import Switch
from playbooks.ledger import Ledger, LedgerUnavailable
from playbooks.live import Services
from playbooks.records import Run, StepRecord, UndoRecord, delivery_id
from playbooks.responses import of_step
from playbooks.threads import Pool, Timers, TooManyHanging, bounded
from tocsin.errors import TocsinError

log = logging.getLogger(__name__)

TIMEOUT_S = 60.0
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
GIVE_UP_S = 24 * 3600.0
"""After this long past its time an undo that keeps failing is left to a person."""
BUSY_WAIT_S = 0.5
LEDGER_WAIT_S = 5.0


class Undoer:
    """Safe to share between threads. `ended` is called when something new is in the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        services: Services,
        switch: Switch,
        timers: Timers,
        pool: Pool,
        ended: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._services = services
        self._switch = switch
        self._timers = timers
        self._pool = pool
        self._ended = ended
        self._lock = threading.Lock()
        self._busy: set[tuple[str, str]] = set()

    def recover(self) -> None:
        """Sets a timer for every armed undo; what is overdue runs at once."""
        for undo in self._ledger.undos(state="armed", limit=1_000_000):
            self.arm(undo)

    def release(self) -> None:
        """After the kill switch was put back: what became due meanwhile runs now."""
        now = time.time_ns()
        for undo in self._ledger.undos(state="armed", limit=1_000_000):
            if undo.due_ns is not None and undo.due_ns <= now:
                self.arm(undo)

    def arm(self, undo: UndoRecord) -> None:
        if undo.due_ns is not None:
            self._again(undo.run_id, undo.step_id, (undo.due_ns - time.time_ns()) / 1e9)

    def now(self, run_id: str, by: str) -> list[UndoRecord]:
        """Takes back, last step first, all of the run that is armed or has failed to be; how each went.

        A person asked: works while everything is halted, too. Takes up to a minute for each.
        """
        records = {r.step_id: r for r in self._ledger.steps(run_id)}
        undos = [u for u in self._ledger.undos(run_id=run_id) if u.state in ("armed", "failed")]
        undos.sort(key=lambda u: records[u.step_id].begun_ns, reverse=True)
        for undo in undos:
            self._take_back(undo.run_id, undo.step_id, by)
        return [found for u in undos if (found := self._ledger.undo(u.run_id, u.step_id))]

    def _due(self, run_id: str, step_id: str) -> None:
        if self._switch.halted_by is not None:
            return
        try:
            self._take_back(run_id, step_id, None)
        except LedgerUnavailable as e:
            log.error("an undo in run %s waits: %s", run_id, e)
            self._again(run_id, step_id, LEDGER_WAIT_S)
        except Exception:  # a defect of ours: even so nothing stays frozen or cut off until somebody restarts us
            log.exception("an undo in run %s failed and is tried again", run_id)
            self._again(run_id, step_id, LONGEST_WAIT_S)

    def _take_back(self, run_id: str, step_id: str, by: str | None) -> None:
        with self._lock:
            if (run_id, step_id) in self._busy:
                return
            self._busy.add((run_id, step_id))
        try:
            undo, run = self._ledger.undo(run_id, step_id), self._ledger.run(run_id)
            step = next((s for s in self._ledger.steps(run_id) if s.step_id == step_id), None)
            if undo is None or run is None or step is None or undo.state not in ("armed", "failed"):
                return
            if undo.state == "failed" and by is None:
                return
            if by is None and (undo.due_ns is None or undo.due_ns > time.time_ns()):
                self.arm(undo)  # another run has put it off since the timer was set
                return
            if step.state == "acting":
                # It could act after it was taken back, and then nothing would ever take it back.
                self._again(run_id, step_id, BUSY_WAIT_S)
                return
            later = None if by or undo.due_ns is None else self._ledger.superseding(undo)
            if later:
                reason = f"run {later.run_id} has done it again since, and takes it back"
                self._settle(run, step, undo, Result(Outcome.UNCHANGED, reason), by)
                return
            self._settle(run, step, undo, self._result(run, undo), by)
        finally:
            with self._lock:
                self._busy.discard((run_id, step_id))

    def _result(self, run: Run, undo: UndoRecord) -> Result:
        deadline = time.monotonic() + TIMEOUT_S
        try:
            action = actions.load(undo.uses)
            parameters = action.parameters.model_validate(undo.parameters)
            call = self._call(run, undo, deadline)
            return bounded(lambda: action.undo(call, parameters, undo.saved), deadline)
        except Gone:
            return Result(Outcome.UNCHANGED, "the container is gone")
        except TimeoutError:
            return Result(Outcome.FAILED, f"gave no answer within {TIMEOUT_S:g} s")
        except (TocsinError, TooManyHanging) as e:
            return Result(Outcome.FAILED, str(e))
        except Exception as e:
            log.exception("undo of %s failed in run %s", undo.uses, run.id)
            return Result(Outcome.FAILED, f"{type(e).__name__}: {e}")

    def _call(self, run: Run, undo: UndoRecord, deadline: float) -> Call:
        return Call(
            alert=decode(run.alert),
            container_id=undo.container_id,
            seen=None,
            playbook=run.playbook,
            run_id=run.id,
            step_id=undo.step_id,
            attempt=undo.attempts + 1,
            delivery_id=delivery_id(run.id, undo.step_id),
            evidence_dir=self._services.evidence_dir / run.id,
            deadline=deadline,
            daemon=self._services.daemon,
            post=lambda delivery: None,
            console_url=self._services.console_url,
            saved=undo.saved,
        )

    def _settle(self, run: Run, step: StepRecord, undo: UndoRecord, result: Result, by: str | None) -> None:
        now = time.time_ns()
        given_up = undo.due_ns is not None and now > undo.due_ns + int(GIVE_UP_S * 1e9)
        if result.outcome is Outcome.FAILED and (by or not given_up):
            self._postpone(undo, result.reason, by)
            return
        failed = result.outcome is Outcome.FAILED
        event = StepRecord(
            run_id=run.id, step_id=step.step_id, uses=undo.uses, claim_id="", state="done",
            outcome=result.outcome.value, reason=result.reason, verified=not failed, begun_ns=now, ended_ns=now,
        )  # fmt: skip
        with self._ledger.writing() as tx:
            if not tx.settle_undo(run.id, step.step_id, "failed" if failed else "done", result.reason, now):
                return
            tx.audit(
                "undone", run=run.id, step=step.step_id, action=undo.uses, outcome=result.outcome.value,
                reason=result.reason, by=by or "its time",
            )  # fmt: skip
            tx.respond(of_step(run, decode(run.alert), event, now, undo_of=step.step_id))
        self._ended()

    def _postpone(self, undo: UndoRecord, reason: str, by: str | None) -> None:
        """It failed: noted, and tried again by itself unless a person tried it."""
        with self._ledger.writing() as tx:
            tx.postpone_undo(undo.run_id, undo.step_id, reason)
            tx.audit("undo_failed", run=undo.run_id, step=undo.step_id, reason=reason, by=by or "its time")
        if by is None:
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(undo.attempts, 20))
            log.warning("the undo of %s in run %s waits %g s: %s", undo.uses, undo.run_id, wait_s, reason)
            self._again(undo.run_id, undo.step_id, wait_s)

    def _again(self, run_id: str, step_id: str, wait_s: float) -> None:
        self._timers.after(wait_s, lambda: self._pool.put(lambda: self._due(run_id, step_id)))
