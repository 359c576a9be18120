"""The playbooks process: takes alerts, runs what answers them, and can be asked. Wires the parts; owns none of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from playbooks.approvals import Approvals
from playbooks.audit import AuditFile
from playbooks.document import Mode
from playbooks.guard import Guard, own_container_ids
from playbooks.halt import Switch
from playbooks.intake import Intake
from playbooks.ledger import Ledger, LedgerUnavailable
from playbooks.live import Services
from playbooks.outbox import Outbox, Send
from playbooks.records import Approval, Message, Run, StepRecord, UndoRecord
from playbooks.responses import Emit, Emitter
from playbooks.runner import Runner
from playbooks.schema import Playbook
from playbooks.steps import Hooks, Steps
from playbooks.threads import Pool, Timers, hanging
from playbooks.undo import Undoer
from tocsin.errors import Rejected, RetryLater
from tocsin.link import Reply, Request, Routes

RUN_THREADS = 8
UNDO_THREADS = 4
MAX_BACKLOG = 10_000
"""Runs that wait for a thread. Beyond it alerts are put off: the forwarder keeps them."""
KEEP_S = 90 * 86400.0
"""Ended runs older than this are removed at start and every day. The audit is kept."""
FORGET_EVERY_S = 86400.0
AUDIT_FILE = "audit.log"


class Playbooks:
    """start() before the first alert, stop() once. A killed process loses nothing that was acknowledged."""

    def __init__(
        self,
        playbooks: Sequence[Playbook],
        ledger_dir: Path,
        services: Services,
        send: Send,
        emit: Emit,
        *,
        mode_ceiling: Mode = Mode.ENFORCE,
        protect_labels: Collection[str] = (),
        own_ids: Collection[str] | None = None,
    ) -> None:
        """TocsinError when another process holds the ledger."""
        self._playbooks = playbooks
        self._ceiling = mode_ceiling
        self._stopping = threading.Event()
        self._ledger = Ledger(ledger_dir)
        self._timers = Timers()
        self._runs = Pool("run", RUN_THREADS)
        self._undo_pool = Pool("undo", UNDO_THREADS)
        self._emitter = Emitter(self._ledger, emit, AuditFile(ledger_dir / AUDIT_FILE))
        ended = self._emitter.notify
        self._switch = Switch(self._ledger)
        self._approvals = Approvals(self._ledger, self._timers, lambda run_id: self._runner.resume(run_id))
        self._outbox = Outbox(self._ledger, send, services.secrets, self._timers, ended)
        self._undoer = Undoer(self._ledger, services, self._switch, self._timers, self._undo_pool, ended)
        guard = Guard(tuple(protect_labels), own_container_ids() if own_ids is None else own_ids)
        hooks = Hooks(self._undoer.arm, self._outbox.posted, ended)
        steps = Steps(self._ledger, guard, self._switch, self._approvals, services, hooks, self._stopping)
        by_name = {p.name: p for p in playbooks}
        self._runner = Runner(self._ledger, by_name, mode_ceiling, steps, self._runs, self._timers, self._stopping)
        self._intake = Intake(self._ledger, playbooks, mode_ceiling)

    def start(self) -> None:
        """Goes on where the last process stopped: runs, approvals, undos (overdue ones at once), messages."""
        self._forget()
        for part in (self._timers, self._runs, self._undo_pool, self._emitter):
            part.start()
        self._runner.recover()
        self._approvals.recover()
        self._undoer.recover()
        self._outbox.recover()
        self._emitter.notify()

    def stop(self, within_s: float = 10.0) -> None:
        """Lets what is acting or sending end, up to that time in all; everything else goes on at the next start."""
        deadline = time.monotonic() + within_s
        self._stopping.set()
        self._timers.stop()
        clean = True
        for end in (self._runs.stop, self._undo_pool.stop, self._outbox.stop):
            clean &= end(max(0.0, deadline - time.monotonic()))
        self._emitter.stop()
        with contextlib.suppress(LedgerUnavailable), self._ledger.writing():
            pass  # what was emitted is noted with a commit; without one it is emitted again, with the same id
        if clean:
            self._ledger.close()

    def _forget(self) -> None:
        self._timers.after(FORGET_EVERY_S, lambda: self._runs.put(self._forget))
        with self._ledger.writing() as tx:
            tx.forget(time.time_ns() - int(KEEP_S * 1e9))

    def take(self, lines: Sequence[bytes]) -> int:
        """Takes alerts, one encoded event each. When it returns, what they start is on disk and under way.

        The number of runs that began. RetryLater when too many wait already. Repeats are absorbed.
        """
        if self._stopping.is_set() or self._runs.waiting() > MAX_BACKLOG:
            raise RetryLater("too many runs wait" if not self._stopping.is_set() else "stopping", 1.0)
        begun = self._intake.take(lines)
        for live in begun:
            self._runner.begin(live)
        if lines:
            self._emitter.notify()
        return len(begun)

    def status(self) -> dict[str, Any]:
        """Counters and state, as JSON values."""
        return {
            "halted_by": self._switch.halted_by,
            "mode_ceiling": self._ceiling.value,
            "playbooks": [
                {"name": p.name, "revision": p.revision, "mode": p.document.mode.lowered_to(self._ceiling).value}
                for p in self._playbooks
            ],
            "alerts": {"taken": self._intake.taken, "malformed": self._intake.malformed},
            "backlog": self._runs.waiting(),
            "hanging_calls": hanging(),
            **self._ledger.counts(),
        }

    def routes(self) -> Routes:
        """What playbooks.sock answers."""
        return {
            ("POST", "/alerts"): self._post_alerts,
            ("GET", "/status"): self._get_status,
            ("GET", "/runs"): self._get_runs,
            ("GET", "/runs/{id}"): self._get_run,
            ("GET", "/undos"): self._get_undos,
            ("POST", "/undo/{run_id}"): self._post_undo,
            ("GET", "/approvals"): self._get_approvals,
            ("POST", "/approvals/{id}"): self._post_approval,
            ("GET", "/outbox"): self._get_outbox,
            ("POST", "/outbox/{id}"): self._post_outbox,
            ("POST", "/halt"): self._post_halt,
            ("POST", "/resume"): self._post_resume,
        }

    async def _post_alerts(self, request: Request) -> Reply:
        lines = [line for line in request.body.split(b"\n") if line]
        begun = await asyncio.to_thread(self.take, lines)
        return Reply.json({"taken": len(lines), "begun": begun})

    async def _get_status(self, request: Request) -> Reply:
        return Reply.json(await asyncio.to_thread(self.status))

    async def _get_runs(self, request: Request) -> Reply:
        return Reply.json([shown(r) for r in self._ledger.runs(_limit(request), request.query.get("state"))])

    async def _get_run(self, request: Request) -> Reply:
        run = self._ledger.run(request.path["id"])
        if run is None:
            raise Rejected(f"there is no run {request.path['id'][:40]!r}")
        return Reply.json(
            shown(run)
            | {
                "steps": [shown(s) for s in self._ledger.steps(run.id)],
                "undos": [shown(u) for u in self._ledger.undos(run_id=run.id)],
                "alert": msgspec.Raw(run.alert),
            }
        )

    async def _get_undos(self, request: Request) -> Reply:
        undos = self._ledger.undos(state=request.query.get("state"), limit=_limit(request))
        return Reply.json([shown(u) for u in undos])

    async def _post_undo(self, request: Request) -> Reply:
        undone = await asyncio.to_thread(self._undoer.now, request.path["run_id"], _by(request))
        if not undone:
            raise Rejected(f"the run {request.path['run_id'][:40]!r} has nothing to take back")
        return Reply.json([shown(u) for u in undone])

    async def _get_approvals(self, request: Request) -> Reply:
        approvals = self._ledger.approvals(state=request.query.get("state"), limit=_limit(request))
        return Reply.json([shown(a) for a in approvals])

    async def _post_approval(self, request: Request) -> Reply:
        decision = request.query.get("decision", "")
        return Reply.json(
            shown(await asyncio.to_thread(self._approvals.decide, request.path["id"], decision, _by(request)))
        )

    async def _get_outbox(self, request: Request) -> Reply:
        messages = self._ledger.messages(request.query.get("state", "pending"), _limit(request))
        return Reply.json([shown(m) for m in messages])

    async def _post_outbox(self, request: Request) -> Reply:
        return Reply.json(shown(await asyncio.to_thread(self._outbox.resend, request.path["id"])))

    async def _post_halt(self, request: Request) -> Reply:
        await asyncio.to_thread(self._switch.halt, _by(request))
        return Reply.json({"halted_by": self._switch.halted_by})

    async def _post_resume(self, request: Request) -> Reply:
        await asyncio.to_thread(self._switch.resume, _by(request))
        await asyncio.to_thread(self._undoer.release)
        return Reply.json({"halted_by": self._switch.halted_by})


def shown(record: Run | StepRecord | UndoRecord | Approval | Message) -> dict[str, Any]:
    """A record as JSON values, without the bulk: an alert or a body is asked for by itself."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    for name in ("alert", "body"):
        if isinstance(getattr(record, name, None), bytes):
            del values[name]
    return values


def _limit(request: Request) -> int:
    text = request.query.get("limit", "100")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 10_000:
        raise Rejected(f"limit must be a number from 1 to 10000, not {text[:40]!r}")
    return int(text)


def _by(request: Request) -> str:
    return request.query.get("by", "") or "unknown"
