"""From alerts to runs: which playbooks answer, and whether each may start. Owns cooldown, concurrency and limits.

All runs of one delivery are claimed in one commit. A run's id comes from alert and playbook, so the same alert
delivered again, in whatever company or order, starts nothing.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ecs_mappings.event import Event, decode, encode
from playbooks.document import Mode
from playbooks.ledger import Ledger, Transaction
from playbooks.live import Live
from playbooks.records import Run, RunState, run_id
from playbooks.responses import of_run
from playbooks.schema import Playbook
from playbooks.values import Template, ValueProblem, names_of, value_at

log = logging.getLogger(__name__)

MAX_KEY_CHARS = 512
"""Of a filled-in key; of a longer one a hash stands for its end, so that padding never makes two keys equal."""


class Intake:
    """Safe to share between threads."""

    def __init__(self, ledger: Ledger, playbooks: Sequence[Playbook], ceiling: Mode) -> None:
        self._ledger = ledger
        self._playbooks = [(p, p.document.mode.lowered_to(ceiling)) for p in playbooks]
        self.taken = 0
        """Alerts, repeats and doubles included."""
        self.malformed = 0
        """Lines that were no event. They are logged, not kept: the forwarder has them."""

    def take(self, lines: Sequence[bytes]) -> list[Live]:
        """The runs to begin now. When it returns, all that these alerts start is in the ledger, on disk."""
        found = [pair for line in lines for pair in self._answers(line)]
        self.taken += len(lines)
        if not found:
            return []
        with self._ledger.writing() as tx:
            begun = [live for answer in found if (live := self._admit(tx, *answer))]
        decided_ns = time.time_ns()
        for live in begun:
            live.decided_ns = decided_ns
        return begun

    def _answers(self, line: bytes) -> list[tuple[Playbook, Mode, Event, dict[str, Any]]]:
        try:
            alert = decode(line)
        except (msgspec.DecodeError, ValueError) as e:
            self.malformed += 1
            log.error("an alert cannot be read and starts nothing: %s", str(e)[:300])
            return []
        names = names_of(alert)
        return [
            (playbook, mode, alert, names)
            for playbook, mode in self._playbooks
            if mode is not Mode.DISABLED and playbook.matcher.matches(names)
        ]

    def _admit(
        self, tx: Transaction, playbook: Playbook, mode: Mode, alert: Event, names: Mapping[str, Any]
    ) -> Live | None:
        """Writes the run; None when it does not begin now, or was there before."""
        id = run_id(alert.event.id, playbook.name)
        if tx.has_run(id):
            return None
        now = time.time_ns()
        run = Run(
            id=id,
            alert_id=alert.event.id,
            alert=encode(alert),
            playbook=playbook.name,
            revision=playbook.revision,
            mode=mode.value,
            state="running",
            reason="",
            rule=value_at(names, "rule.name") or value_at(names, "rule.id"),
            container_id=value_at(names, "container.id"),
            container_name=value_at(names, "container.name"),
            key=None,
            tripped=False,
            created_ns=now,
        )
        live = Live(run, playbook, alert, mode, now, names=dict(names))
        try:
            run = self._judged(tx, playbook, run, live.names)
        except ValueProblem as e:
            run = _not(run, "suppressed", f"a key cannot be filled in: {e}")
        live.run = run
        tx.add(run)
        tx.audit(
            "run_" + run.state, run=id, playbook=run.playbook, revision=run.revision, mode=run.mode,
            alert=run.alert_id, rule=run.rule, container=run.container_id, reason=run.reason,
        )  # fmt: skip
        if run.state in ("suppressed", "merged"):
            tx.respond(of_run(run, alert))
        return live if run.state == "running" else None

    def _judged(self, tx: Transaction, playbook: Playbook, run: Run, names: Mapping[str, Any]) -> Run:
        document, now = playbook.document, run.created_ns
        cooldown = _key(playbook.cooldown_key, names) if playbook.cooldown_key else None
        if cooldown is not None and (until := tx.cooldown_until(playbook.name, cooldown)) > now:
            return _not(run, "suppressed", f"cooldown for another {(until - now) / 1e9:.0f} s")
        if playbook.concurrency_key and document.concurrency:
            key = _key(playbook.concurrency_key, names)
            run = msgspec.structs.replace(run, key=key)
            if other := tx.busy(playbook.name, key):
                when_busy = document.concurrency.when_busy
                if when_busy == "drop":
                    return _not(run, "suppressed", f"run {other} is busy with it")
                if when_busy == "merge":
                    return _not(run, "merged", f"run {other} is busy with it")
                run = msgspec.structs.replace(run, state="queued", reason=f"after run {other}")
        if cooldown is not None and document.cooldown:
            tx.set_cooldown(playbook.name, cooldown, now + int(document.cooldown.for_ * 1e9))
        if document.limits:
            since = now - int(document.limits.per * 1e9)
            targets = tx.count_target(playbook.name, run.container_id or run.id, now, since)
            run = msgspec.structs.replace(run, tripped=targets > document.limits.max_targets)
        return run


def _key(template: Template, names: Mapping[str, Any]) -> str:
    """Raises ValueProblem."""
    text = template.text(names)
    if len(text) <= MAX_KEY_CHARS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[: MAX_KEY_CHARS - len(digest) - 1]}#{digest}"


def _not(run: Run, state: RunState, reason: str) -> Run:
    return msgspec.structs.replace(run, state=state, reason=reason, ended_ns=run.created_ns)
