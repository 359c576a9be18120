"""Runs: their steps in order, what follows trouble, their end, and who runs next. Owns the state of a run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

import msgspec

from playbooks.document import Mode
from playbooks.ledger import Ledger, LedgerUnavailable
from playbooks.live import TROUBLE, Live, revived
from playbooks.records import Run, StepRecord
from playbooks.schema import Playbook
from playbooks.steps import Steps, Stopping, Waiting
from playbooks.threads import Pool, Timers

log = logging.getLogger(__name__)

LEDGER_WAIT_S = 5.0
"""After this long a run whose step could not be recorded is taken up again, as after a crash."""


class Runner:
    """Safe to share between threads."""

    def __init__(
        self,
        ledger: Ledger,
        playbooks: Mapping[str, Playbook],
        ceiling: Mode,
        steps: Steps,
        pool: Pool,
        timers: Timers,
        stopping: threading.Event,
    ) -> None:
        self._ledger = ledger
        self._playbooks = playbooks
        self._ceiling = ceiling
        self._steps = steps
        self._pool = pool
        self._timers = timers
        self._stopping = stopping

    def recover(self) -> None:
        """Goes on with every run that the last process left, oldest first."""
        for run in self._ledger.unfinished():
            if run.state == "running":
                self.resume(run.id)
            elif run.state == "queued" and run.key is not None:
                self._start_if_free(run)

    def begin(self, live: Live) -> None:
        """The run is in the ledger as running."""
        self._pool.put(lambda: self._work(live))

    def resume(self, run_id: str) -> None:
        """Goes on with a run that the ledger has as running, from its last recorded step."""
        self._pool.put(lambda: self._pick_up(run_id))

    def _pick_up(self, run_id: str) -> None:
        self._going_on(run_id, lambda: self._go_on(run_id))

    def _work(self, live: Live) -> None:
        self._going_on(live.run.id, lambda: self._run(live))

    def _going_on(self, run_id: str, call: Callable[[], None]) -> None:
        """Calls it, as far as it comes now; a run that lost its ledger is taken up again."""
        try:
            call()
        except (Waiting, Stopping):
            return
        except LedgerUnavailable as e:
            log.error("run %s waits: %s", run_id, e)
            self._timers.after(LEDGER_WAIT_S, lambda: self.resume(run_id))

    def _go_on(self, run_id: str) -> None:
        run = self._ledger.run(run_id)
        if run is None or run.state != "running":
            return
        records = self._ledger.steps(run_id)
        playbook = self._playbooks.get(run.playbook)
        if playbook is None or playbook.revision != run.revision:
            self._abandon(run, records, f"its playbook (revision {run.revision}) was changed or removed while it ran")
            return
        if Mode(run.mode).lowered_to(self._ceiling) is Mode.DISABLED:
            self._abandon(run, records, "playbooks were disabled while it ran")
            return
        self._run(revived(run, playbook, self._ceiling, records))

    def _run(self, live: Live) -> None:
        try:
            trouble = self._walk(live)
            if trouble is None:
                self._end(live.run, "done", "")
                return
            live.fail(trouble)
            for step in live.playbook.on_failure:
                self._check_stopping()
                self._steps.run(live, step)
            self._end(live.run, "failed", f"{trouble.step_id} {trouble.outcome}: {trouble.reason}")
        except (Waiting, Stopping, LedgerUnavailable):
            raise
        except Exception as e:
            log.exception("run %s cannot go on", live.run.id)
            self._end(live.run, "failed", f"{type(e).__name__}: {e}")

    def _walk(self, live: Live) -> StepRecord | None:
        """The steps in order; the record of the one that makes the run fail, if any."""
        for step in live.playbook.steps:
            self._check_stopping()
            record = self._steps.run(live, step)
            if record.outcome in TROUBLE:
                if step.on_error == "fail":
                    return record
                if step.on_error == "skip_rest":
                    return None
        return None

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise Stopping

    def _end(self, run: Run, state: str, reason: str) -> None:
        """Ends it, and begins the next one that waits for the same key, in one commit."""
        with self._ledger.writing() as tx:
            tx.set_run(run.id, state, reason, time.time_ns())
            tx.audit("run_ended", run=run.id, playbook=run.playbook, state=state, reason=reason)
            follower = tx.next_queued(run.playbook, run.key) if run.key is not None else None
            if follower:
                tx.set_run(follower.id, "running")
        if follower:
            self.resume(follower.id)

    def _start_if_free(self, run: Run) -> None:
        assert run.key is not None
        with self._ledger.writing() as tx:
            if tx.active(run.playbook, run.key):
                return
            tx.set_run(run.id, "running")
        self.resume(run.id)

    def _abandon(self, run: Run, records: list[StepRecord], reason: str) -> None:
        """The steps to come are unknown, or not wanted any more. What was armed is still taken back."""
        now = time.time_ns()
        with self._ledger.writing() as tx:
            for record in records:
                if record.state != "done":
                    tx.put(msgspec.structs.replace(record, state="done", outcome="failed", reason=reason, ended_ns=now))
        self._end(run, "failed", reason)
