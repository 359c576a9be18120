"""The kill switch: while it is thrown nothing is changed, not even by an undo that is due. Survives restarts."""

from __future__ import annotations

from playbooks.guard import Denied
from playbooks.ledger import Ledger

_FLAG = "halted"
MAX_BY_CHARS = 100


class Switch:
    """Safe to share between threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by = ledger.flag(_FLAG)

    @property
    def halted_by(self) -> str | None:
        """Who threw it; None when it is not thrown."""
        return self._by

    def check(self) -> None:
        """Denied while it is thrown."""
        if self._by is not None:
            raise Denied(f"everything is halted by {self._by}")

    def halt(self, by: str) -> None:
        """When this returns no step that changes something begins to act any more."""
        self._set("halted", by, by)

    def resume(self, by: str) -> None:
        self._set("resumed", by, None)

    def _set(self, kind: str, by: str, value: str | None) -> None:
        value = value and value[:MAX_BY_CHARS]
        self._by = value or self._by  # halting counts at once, resuming only when it is on disk
        with self._ledger.writing() as tx:
            tx.set_flag(_FLAG, value)
            tx.audit(kind, by=by[:MAX_BY_CHARS])
        self._by = value
