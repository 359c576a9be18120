"""One step of a run, from `if` to its record: look, ask, claim, act, look again. Owns that order.

On disk before act: the claim and how to undo it, in one commit. On disk after act: outcome, messages and the response
event, in another. A step found claimed but not ended (the process died) is looked at first and acted on only if its
effect is not there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import tenacity
from pydantic import BaseModel

from playbooks.action import Call, Delivery, Outcome, Plan, Result
from playbooks.approvals import Approvals
from playbooks.daemon import ContainerState, Gone
from playbooks.document import Approve, Mode, Retry
from playbooks.guard import Denied, Guard
from playbooks.halt import Switch
from playbooks.ledger import Ledger, LedgerUnavailable, Transaction
from playbooks.live import Live, Services
from playbooks.outbox import message_of
from playbooks.records import Message, StepRecord, UndoRecord, claim_id, delivery_id
from playbooks.responses import of_step
from playbooks.schema import ReadyStep
from playbooks.threads import TooManyHanging, bounded
from playbooks.values import ValueProblem
from tocsin.errors import RetryLater, TocsinError

log = logging.getLogger(__name__)

MAX_REASON_CHARS = 1000
MAX_DATA_BYTES = 64 * 1024
MAX_RETRY_WAIT_S = 300.0


class Waiting(Exception):
    """The run waits for a person; everything it needs to go on is in the ledger."""


class Stopping(Exception):
    """The process ends; the run goes on after the next start."""


@dataclass
class Ending:
    """How an attempt ended."""

    outcome: Outcome
    reason: str
    verified: bool | None = None
    would_change: bool | None = None
    data: dict[str, Any] = field(default_factory=dict)
    acted_ns: int | None = None
    verified_ns: int | None = None
    attempts: int = 0
    again: bool = False
    """Another attempt might do better."""
    after_s: float = 0.0
    """How long the other side asked to be left alone."""
    posted: list[Delivery] = field(default_factory=list)


@dataclass
class Hooks:
    """What others must hear of once it is on disk."""

    armed: Callable[[UndoRecord], None]
    posted: Callable[[list[Message]], None]
    ended: Callable[[], None]


class Steps:
    """Safe to share between threads; one run is in one thread's hands at a time."""

    def __init__(
        self,
        ledger: Ledger,
        guard: Guard,
        switch: Switch,
        approvals: Approvals,
        services: Services,
        hooks: Hooks,
        stopping: threading.Event,
    ) -> None:
        self._ledger = ledger
        self._guard = guard
        self._switch = switch
        self._approvals = approvals
        self._services = services
        self._hooks = hooks
        self._stopping = stopping

    def run(self, live: Live, step: ReadyStep) -> StepRecord:
        """The record of the step, ended now or before a restart. Raises Waiting or Stopping."""
        record = live.records.get(step.id) or StepRecord(
            run_id=live.run.id,
            step_id=step.id,
            uses=step.uses,
            claim_id=claim_id(live.run.alert_id, live.run.playbook, live.run.revision, step.id),
            state="acting",
            begun_ns=time.time_ns(),
        )
        if record.state == "done":
            return record
        ending = self._not_now(live, step)
        if ending is None:
            try:
                ending = _Attempts(self, live, step, step.parameters(live.names), record).made()
            except ValueProblem as e:
                ending = Ending(Outcome.FAILED, str(e))
        return self._finish(live, step, live.records.get(step.id, record), ending)

    def _not_now(self, live: Live, step: ReadyStep) -> Ending | None:
        """The end of a step whose `if` does not hold, or cannot be told: it fails closed."""
        if step.condition is None or step.id in live.records:
            return None
        try:
            if step.condition.holds(live.names):
                return None
            return Ending(Outcome.SKIPPED, f"if: {step.condition.source} does not hold")
        except ValueProblem as e:
            return Ending(Outcome.SKIPPED, f"if: {e}")

    def _finish(self, live: Live, step: ReadyStep, record: StepRecord, ending: Ending) -> StepRecord:
        now = time.time_ns()
        done = msgspec.structs.replace(
            record,
            state="done",
            outcome=ending.outcome.value,
            reason=ending.reason[:MAX_REASON_CHARS],
            verified=ending.verified,
            would_change=ending.would_change,
            attempts=ending.attempts,
            data=_fitting(ending.data),
            acted_ns=ending.acted_ns,
            verified_ns=ending.verified_ns,
            ended_ns=now,
        )
        messages = [message_of(d, live.run.id, step.id, step.retry, now) for d in ending.posted]
        with self._ledger.writing() as tx:
            tx.put(done)
            for message in messages:
                tx.add(message)
            if ending.outcome in (Outcome.CHANGED, Outcome.UNCHANGED):
                self._prolong(tx, live, step, record)
            if ending.outcome is Outcome.UNCHANGED:
                tx.settle_undo(live.run.id, step.id, "disarmed", ending.reason[:MAX_REASON_CHARS], now)
            tx.audit(
                "step_ended", run=live.run.id, step=step.id, action=step.uses, outcome=done.outcome,
                verified=done.verified, would_change=done.would_change, reason=done.reason,
            )  # fmt: skip
            tx.respond(of_step(live.run, live.alert, done, live.decided_ns))
        live.note(done)
        if messages:
            self._hooks.posted(messages)
        self._hooks.ended()
        return done

    def _prolong(self, tx: Transaction, live: Live, step: ReadyStep, record: StepRecord) -> None:
        """What this step found done, or has done in part, must hold as long as it asks for, whoever did it first.

        Else an attacker would set off the mildest playbook first, and its undo would end the containment of all others.
        """
        free = live.mode is Mode.ENFORCE and not live.run.tripped and step.approve is None
        if not (step.action.undoable and free):
            return
        own = self._ledger.undo(live.run.id, step.id) or _undo(live, step, record, {}, time.time_ns())
        for run_id, step_id in tx.prolong_undos(own):
            tx.audit("undo_put_off", run=run_id, step=step_id, for_run=live.run.id, until_ns=own.due_ns)

    def claim(self, live: Live, step: ReadyStep, record: StepRecord, plan: Plan, parameters: BaseModel) -> StepRecord:
        """The commit before act. After it the step may have acted, whatever happens. Raises Denied when halted."""
        now = time.time_ns()
        claimed = msgspec.structs.replace(record, state="acting", saved=dict(plan.saved))
        undo = _undo(live, step, claimed, parameters.model_dump(mode="json", by_alias=True), now)
        with self._ledger.writing() as tx:
            if step.action.mutates:
                self._switch.check()  # once more: after halt() has written, no claim gets through
            tx.put(claimed)
            if step.action.undoable:
                tx.add(undo)
            tx.audit("step_claimed", run=live.run.id, step=step.id, action=step.uses, claim=record.claim_id)
        if step.action.undoable:
            self._hooks.armed(undo)
        live.note(claimed)
        return claimed

    def look(self, live: Live, step: ReadyStep) -> ContainerState | None:
        """What the guard saw; None where it need not look. Raises Denied, or the daemon's Gone."""
        if not step.action.mutates:
            if step.action.needs_container:
                self._guard.identify(live.run.container_id)
            return None
        self._switch.check()
        if not step.action.needs_container:
            return None
        seen = self._services.daemon.inspect(self._guard.identify(live.run.container_id))
        self._guard.check(live.alert, seen, live.playbook.document.protect.labels)
        return seen

    def permit(self, live: Live, step: ReadyStep, record: StepRecord, plan: Plan) -> Ending | None:
        """None when the step may act; its end when a person, or nobody in time, said no. Raises Waiting."""
        cautious = step.action.mutates and (live.mode is Mode.APPROVE or live.run.tripped)
        if step.approve is None and not cautious:
            return None
        terms = step.approve or Approve()
        approval = self._approvals.of(live.run.id, step.id)
        if approval is None or approval.state == "pending":
            why = "beyond the playbook's limits, " if live.run.tripped else ""
            self._approvals.ask(live, record, terms, f"{why}{step.uses} wants to act: {plan.reason}"[:MAX_REASON_CHARS])
            self._hooks.ended()
            raise Waiting
        if approval.state == "denied":
            return Ending(Outcome.DENIED, f"denied by {approval.by}")
        if approval.state == "expired" and approval.on_timeout != "run":
            failed = approval.on_timeout == "fail"
            return Ending(Outcome.FAILED if failed else Outcome.SKIPPED, "nobody approved it in time")
        return None

    def overdue(self, live: Live, step: ReadyStep) -> bool:
        """Whether the step should have been taken back by now."""
        undo = self._ledger.undo(live.run.id, step.id)
        return undo is not None and undo.due_ns is not None and undo.due_ns <= time.time_ns()

    def call(self, live: Live, step: ReadyStep, number: int, deadline: float) -> Call:
        return Call(
            alert=live.alert,
            container_id=live.run.container_id,
            seen=None,
            playbook=live.playbook.name,
            run_id=live.run.id,
            step_id=step.id,
            attempt=number,
            delivery_id=delivery_id(live.run.id, step.id),
            evidence_dir=self._services.evidence_dir / live.run.id,
            evidence_limit_bytes=self._services.evidence_limit_bytes,
            deadline=deadline,
            daemon=self._services.daemon,
            post=lambda delivery: None,
            console_url=self._services.console_url,
        )

    def pause(self, seconds: float) -> None:
        """Between attempts. Raises Stopping."""
        if self._stopping.wait(seconds):
            raise Stopping


class _Attempts:
    """The attempts of one step: what they share is the first claim, and what it saved."""

    def __init__(self, steps: Steps, live: Live, step: ReadyStep, parameters: BaseModel, record: StepRecord) -> None:
        self._steps = steps
        self._live = live
        self._step = step
        self._parameters = parameters
        self._record = record
        self._resumed = step.id in live.records and record.state == "acting"
        """Claimed by a process that died: what it did is unknown."""
        self._claimed = self._resumed

    def made(self) -> Ending:
        retry = self._step.retry or Retry(attempts=1)
        growing = tenacity.wait_exponential(retry.backoff, max=MAX_RETRY_WAIT_S, exp_base=retry.factor)
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retry.attempts),
            wait=lambda state: max(growing(state), _ending(state).after_s),
            retry=tenacity.retry_if_result(lambda ending: ending.again),
            retry_error_callback=_ending,
            sleep=self._steps.pause,
        )
        numbers = iter(range(1, retry.attempts + 1))
        ending: Ending = attempts(lambda: self._attempt(next(numbers)))
        return ending

    def _attempt(self, number: int) -> Ending:
        deadline = time.monotonic() + self._step.timeout_s
        call = self._steps.call(self._live, self._step, number, deadline)
        posted: list[Delivery] = []
        call = replace(call, post=posted.append, saved=self._record.saved if self._claimed else None)
        ending = self._ended(call)
        ending.attempts = number
        ending.posted = list(posted)
        return ending

    def _ended(self, call: Call) -> Ending:
        """One attempt; every way in which it can go wrong is an Ending."""
        progress = Ending(Outcome.TIMEOUT, f"gave no answer within {self._step.timeout_s:g} s")
        try:
            return self._look_and_act(call, progress)
        except Gone:
            return replace(progress, outcome=Outcome.UNCHANGED, reason="the container is gone")
        except Denied as e:
            return replace(progress, outcome=Outcome.DENIED, reason=str(e))
        except TimeoutError:
            return replace(progress)  # a copy: the call may go on and tell its progress to nobody
        except TooManyHanging as e:
            return replace(progress, outcome=Outcome.FAILED, reason=str(e))
        except (Waiting, Stopping, LedgerUnavailable):
            raise
        except RetryLater as e:
            return replace(progress, outcome=Outcome.FAILED, reason=str(e), again=True, after_s=e.after_s or 0.0)
        except TocsinError as e:
            return replace(progress, outcome=Outcome.FAILED, reason=str(e), again=True)
        except Exception as e:
            log.exception("%s failed in run %s", self._step.uses, call.run_id)
            return replace(progress, outcome=Outcome.FAILED, reason=f"{type(e).__name__}: {e}", again=True)

    def _look_and_act(self, call: Call, progress: Ending) -> Ending:
        call, plan = bounded(lambda: self._planned(call), call.deadline)
        if not plan.change:
            if self._claimed and bounded(lambda: self._is_there(call, plan), call.deadline):
                return Ending(Outcome.CHANGED, "done by an earlier attempt", True, verified_ns=time.time_ns())
            return Ending(Outcome.UNCHANGED, plan.reason)
        if self._live.mode is Mode.DRY_RUN:
            return Ending(Outcome.SKIPPED, f"dry-run: {plan.reason}", would_change=True)
        if not self._claimed:
            if refusal := self._steps.permit(self._live, self._step, self._record, plan):
                return refusal
            self._record = self._steps.claim(self._live, self._step, self._record, plan, self._parameters)
            self._claimed = True
        elif self._resumed and self._steps.overdue(self._live, self._step):
            return Ending(Outcome.SKIPPED, "its time was over before it could be finished")
        plan = replace(plan, saved=self._record.saved)
        bounded(lambda: self._performed(call, plan, progress), call.deadline)
        return progress

    def _planned(self, call: Call) -> tuple[Call, Plan]:
        call = replace(call, seen=self._steps.look(self._live, self._step))
        return call, self._step.action.plan(call, self._parameters)

    def _is_there(self, call: Call, plan: Plan) -> bool:
        """Whether "nothing to do" means that an attempt of ours did it: then its undo must stay armed."""
        return self._step.action.mutates and self._step.action.verify(call, self._parameters, plan)

    def _performed(self, call: Call, plan: Plan, progress: Ending) -> None:
        """Acts and looks again. `progress` tells how far it came if the caller stops waiting."""
        result = self._step.action.act(call, self._parameters, plan)
        progress.acted_ns = time.time_ns()
        if result.outcome is Outcome.CHANGED and self._step.action.mutates:
            progress.reason = f"{result.reason}, but the second look gave no answer in time"
            progress.verified = False
            progress.verified = self._step.action.verify(call, self._parameters, plan)
            progress.verified_ns = time.time_ns()
            if not progress.verified:
                result = Result(Outcome.FAILED, f"{result.reason}, but a second look does not show it", result.data)
        progress.again = result.outcome is Outcome.FAILED
        progress.data = dict(result.data)
        progress.reason = result.reason
        progress.outcome = result.outcome


def _undo(live: Live, step: ReadyStep, record: StepRecord, parameters: dict[str, Any], now_ns: int) -> UndoRecord:
    return UndoRecord(
        run_id=live.run.id,
        step_id=step.id,
        uses=step.uses,
        parameters=parameters,
        saved=record.saved,
        container_id=live.run.container_id,
        due_ns=None if step.undo_after_s is None else now_ns + int(step.undo_after_s * 1e9),
    )


def _ending(state: tenacity.RetryCallState) -> Ending:
    assert state.outcome is not None
    ending: Ending = state.outcome.result()
    return ending


def _fitting(data: dict[str, Any]) -> dict[str, Any]:
    size = len(msgspec.json.encode(data))
    return data if size <= MAX_DATA_BYTES else {"dropped": f"{size} bytes are more than {MAX_DATA_BYTES}"}
