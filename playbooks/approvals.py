"""Steps that wait for a person. Owns the question, its deadline and the decision; no thread waits meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from playbooks.document import Approve
from playbooks.ledger import Ledger, LedgerUnavailable
from playbooks.live import Live
from playbooks.records import Approval, StepRecord, approval_id
from playbooks.responses import of_step
from playbooks.threads import Timers
from tocsin.errors import Rejected

MAX_BY_CHARS = 100
LEDGER_WAIT_S = 5.0


class Approvals:
    """`resume(run id)` is called, on any thread, when a run can go on."""

    def __init__(self, ledger: Ledger, timers: Timers, resume: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._timers = timers
        self._resume = resume

    def recover(self) -> None:
        """Deadlines go on where they were; those that passed meanwhile count as passed."""
        for approval in self._ledger.approvals(state="pending", limit=100_000):
            self._watch(approval)

    def of(self, run_id: str, step_id: str) -> Approval | None:
        """The question of this step, if it was asked."""
        return self._ledger.approval(approval_id(run_id, step_id))

    def ask(self, live: Live, record: StepRecord, terms: Approve, question: str) -> None:
        """Records the question and that the run waits, in one commit."""
        now = time.time_ns()
        approval = Approval(
            id=approval_id(live.run.id, record.step_id),
            run_id=live.run.id,
            step_id=record.step_id,
            question=question,
            asked_ns=now,
            deadline_ns=now + int(terms.timeout * 1e9),
            on_timeout=terms.on_timeout,
        )
        waiting = msgspec.structs.replace(record, state="waiting", reason=question)
        with self._ledger.writing() as tx:
            if tx.add(approval):
                tx.audit("approval_requested", run=live.run.id, step=record.step_id, approval=approval.id)
                tx.respond(of_step(live.run, live.alert, waiting, live.decided_ns))
            tx.put(waiting)
            tx.set_run(live.run.id, "waiting", question)
        self._watch(approval)

    def decide(self, id: str, decision: str, by: str) -> Approval:
        """`approve` or `deny`. Rejected when there is no such question, or it was decided before."""
        state = {"approve": "approved", "deny": "denied"}.get(decision)
        if state is None:
            raise Rejected(f"the decision is approve or deny, not {decision[:40]!r}")
        found = self._ledger.approval(id)
        if found is None:
            raise Rejected(f"there is no approval {id[:40]!r}")
        if not self._settle(found, state, by[:MAX_BY_CHARS] or "unknown"):
            raise Rejected(f"the approval {id} was decided before")
        return self._ledger.approval(id) or found

    def _watch(self, approval: Approval) -> None:
        self._timers.at(approval.deadline_ns, lambda: self._expire(approval))

    def _expire(self, approval: Approval) -> None:
        try:
            self._settle(approval, "expired", "nobody")
        except LedgerUnavailable:
            self._timers.after(LEDGER_WAIT_S, lambda: self._expire(approval))

    def _settle(self, approval: Approval, state: str, by: str) -> bool:
        with self._ledger.writing() as tx:
            if not tx.decide(approval.id, state, by, time.time_ns()):
                return False
            tx.set_run(approval.run_id, "running")
            tx.audit("approval_decided", run=approval.run_id, step=approval.step_id, decision=state, by=by)
        self._resume(approval.run_id)
        return True
