"""What playbooks must never forget: SQLite, WAL, every commit on disk before it counts. Owns every SQL statement.

One process holds a ledger at a time. Writes go through `writing()`, one commit for all that belongs together; reads
use a connection of their own and never wait for a writer.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from playbooks import audit
from playbooks.ledger_file import connect, hold, migrate
from playbooks.records import Approval, AuditRow, Message, Run, StepRecord, UndoRecord
from tocsin.errors import RetryLater, TocsinError

T = TypeVar("T", Run, StepRecord, UndoRecord, Approval, Message, AuditRow)

FILE = "ledger.db"
_JSON = frozenset({"data", "saved", "parameters", "headers"})
_TABLES: Mapping[type[msgspec.Struct], str] = {
    Run: "runs",
    StepRecord: "steps",
    UndoRecord: "undos",
    Approval: "approvals",
    Message: "outbox",
    AuditRow: "audit",
}


class LedgerUnavailable(RetryLater):
    """Nothing was written, or read: the disk is full, or gone. What needs it is tried again, alerts are put off."""


class Ledger:
    """Safe to share between threads."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory (0700) and the tables if needed.

        TocsinError when another process holds it, or it cannot be used.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self._held = hold(directory / "ledger.lock")
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()
        try:
            self._writer = connect(directory / FILE)
            migrate(self._writer, directory / FILE)
            self._reader = connect(directory / FILE)
            self._last_audit = next(iter(_select(self._reader, AuditRow, "ORDER BY seq DESC LIMIT 1")), None)
        except (sqlite3.DatabaseError, OSError) as e:
            os.close(self._held)
            hint = "if it is damaged, keep it elsewhere and start again: audit.log tells what was armed to be undone"
            raise TocsinError(f"{directory / FILE} cannot be used: {e}; {hint}") from e
        self._emitted = 0

    def close(self) -> None:
        with self._lock, self._read_lock:
            self._writer.close()
            self._reader.close()
            os.close(self._held)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Transaction]:
        """One commit, on disk when the block has ended; nothing of it if the block raises. Do not nest.

        Raises LedgerUnavailable when it could not be written.
        """
        with self._lock:
            transaction = Transaction(self._writer, self._last_audit)
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield transaction
                # What was emitted rides along, so that telling the forwarder costs no commit of its own.
                self._writer.execute("DELETE FROM responses WHERE seq <= ? AND refused IS NULL", (self._emitted,))
                self._writer.execute("COMMIT")
            except BaseException as e:
                if self._writer.in_transaction:  # SQLite may have ended it by itself
                    self._writer.execute("ROLLBACK")
                if isinstance(e, sqlite3.OperationalError):
                    raise self._unavailable("written", e) from e
                raise
            self._last_audit = transaction.last_audit

    def emitted(self, seq: int) -> None:
        """Responses up to `seq` have been taken by the forwarder. After a crash some may be emitted again."""
        self._emitted = max(self._emitted, seq)

    def run(self, id: str) -> Run | None:
        return next(iter(self._read(Run, "WHERE id = ?", (id,))), None)

    def runs(self, limit: int, state: str | None = None) -> list[Run]:
        """Newest first."""
        where = "WHERE state = :state" if state else ""
        return self._read(Run, f"{where} ORDER BY created_ns DESC, id LIMIT :limit", {"state": state, "limit": limit})

    def unfinished(self) -> list[Run]:
        """Oldest first."""
        return self._read(Run, "WHERE state IN ('queued', 'running', 'waiting') ORDER BY created_ns, id")

    def steps(self, run_id: str) -> list[StepRecord]:
        return self._read(StepRecord, "WHERE run_id = ? ORDER BY begun_ns", (run_id,))

    def undo(self, run_id: str, step_id: str) -> UndoRecord | None:
        return next(iter(self._read(UndoRecord, "WHERE run_id = ? AND step_id = ?", (run_id, step_id))), None)

    def undos(self, *, state: str | None = None, run_id: str | None = None, limit: int = 1000) -> list[UndoRecord]:
        """Those due first come first."""
        where = "WHERE (:state IS NULL OR state = :state) AND (:run IS NULL OR run_id = :run)"
        order = "ORDER BY due_ns IS NULL, due_ns LIMIT :limit"
        return self._read(UndoRecord, f"{where} {order}", {"state": state, "run": run_id, "limit": limit})

    def superseding(self, undo: UndoRecord) -> UndoRecord | None:
        """An armed undo that will put back the very same, later: the step was done again since."""
        match = "uses = ? AND container_id = ? AND parameters = ? AND saved = ? AND run_id != ?"
        values = (
            undo.uses, undo.container_id, _json(undo.parameters), _json(undo.saved), undo.run_id, undo.due_ns,
        )  # fmt: skip
        where = f"WHERE state = 'armed' AND {match} AND (due_ns IS NULL OR due_ns > ?) LIMIT 1"
        return next(iter(self._read(UndoRecord, where, values)), None)

    def approval(self, id: str) -> Approval | None:
        return next(iter(self._read(Approval, "WHERE id = ?", (id,))), None)

    def approvals(self, *, state: str | None = None, limit: int = 1000) -> list[Approval]:
        """Newest first."""
        where = "WHERE :state IS NULL OR state = :state ORDER BY asked_ns DESC LIMIT :limit"
        return self._read(Approval, where, {"state": state, "limit": limit})

    def message(self, id: str) -> Message | None:
        return next(iter(self._read(Message, "WHERE id = ?", (id,))), None)

    def messages(self, state: str, limit: int = 10_000) -> list[Message]:
        """Oldest first."""
        return self._read(Message, "WHERE state = ? ORDER BY next_ns, created_ns LIMIT ?", (state, limit))

    def responses(self, limit: int) -> list[tuple[int, bytes]]:
        """Response events that nobody has taken yet, oldest first: (seq, line)."""
        with self._reading() as db:
            sql = "SELECT seq, line FROM responses WHERE seq > ? AND refused IS NULL ORDER BY seq LIMIT ?"
            return list(db.execute(sql, (self._emitted, limit)))

    def audit_rows(self, after: int = 0, limit: int = 1000) -> list[AuditRow]:
        return self._read(AuditRow, "WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))

    def flag(self, name: str) -> str | None:
        with self._reading() as db:
            found = db.execute("SELECT value FROM flags WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def counts(self) -> dict[str, dict[str, int]]:
        """How many rows of each state there are: {"runs": {"done": 3}, ...}."""
        with self._reading() as db:
            states = {
                table: dict(db.execute(f"SELECT state, count(*) FROM {table} GROUP BY state").fetchall())
                for table in ("runs", "undos", "approvals", "outbox")
            }
            refused = db.execute("SELECT count(refused), count(*) FROM responses").fetchone()
        return states | {"responses": {"waiting": refused[1] - refused[0], "refused": refused[0]}}

    def _read(self, type_: type[T], where: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[T]:
        with self._reading() as db:
            return _select(db, type_, where, values)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock:
            try:
                yield self._reader
            except sqlite3.OperationalError as e:
                raise self._unavailable("read", e) from e

    def _unavailable(self, what: str, error: sqlite3.OperationalError) -> LedgerUnavailable:
        return LedgerUnavailable(f"{self.directory / FILE} cannot be {what}: {error}", 5.0)


class Transaction:
    """Everything that can be written; only inside Ledger.writing()."""

    def __init__(self, connection: sqlite3.Connection, last_audit: AuditRow | None) -> None:
        self._db = connection
        self.last_audit = last_audit

    def add(self, record: Run | StepRecord | UndoRecord | Approval | Message) -> bool:
        """False, and no change, when there is one with this id already."""
        return self._insert(record, "INSERT OR IGNORE")

    def put(self, record: StepRecord | UndoRecord | Message) -> None:
        """Adds it, or puts it in the place of the one with this id."""
        self._insert(record, "INSERT OR REPLACE")

    def set_run(self, id: str, state: str, reason: str = "", ended_ns: int | None = None) -> None:
        self._db.execute(
            "UPDATE runs SET state = ?, reason = ?, ended_ns = ? WHERE id = ?", (state, reason, ended_ns, id)
        )

    def has_run(self, id: str) -> bool:
        return self._db.execute("SELECT 1 FROM runs WHERE id = ?", (id,)).fetchone() is not None

    def busy(self, playbook: str, key: str) -> str | None:
        """Id of the newest unfinished run of this playbook for this key."""
        found = self._db.execute(
            "SELECT id FROM runs WHERE playbook = ? AND key = ? AND state IN ('queued', 'running', 'waiting')"
            " ORDER BY created_ns DESC LIMIT 1",
            (playbook, key),
        ).fetchone()
        return found[0] if found else None

    def active(self, playbook: str, key: str) -> bool:
        """Whether one is running or waiting, not merely queued."""
        sql = "SELECT 1 FROM runs WHERE playbook = ? AND key = ? AND state IN ('running', 'waiting') LIMIT 1"
        return self._db.execute(sql, (playbook, key)).fetchone() is not None

    def next_queued(self, playbook: str, key: str) -> Run | None:
        where = "WHERE playbook = ? AND key = ? AND state = 'queued' ORDER BY created_ns, id LIMIT 1"
        return next(iter(_select(self._db, Run, where, (playbook, key))), None)

    def cooldown_until(self, playbook: str, key: str) -> int:
        """0 when there is none."""
        sql = "SELECT until_ns FROM cooldowns WHERE playbook = ? AND key = ?"
        found = self._db.execute(sql, (playbook, key)).fetchone()
        return found[0] if found else 0

    def set_cooldown(self, playbook: str, key: str, until_ns: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO cooldowns VALUES (?, ?, ?)", (playbook, key, until_ns))

    def count_target(self, playbook: str, target: str, now_ns: int, since_ns: int) -> int:
        """Notes the target, and says how many different ones this playbook has had since then, with this one."""
        self._db.execute("INSERT OR REPLACE INTO targets VALUES (?, ?, ?)", (playbook, target, now_ns))
        self._db.execute("DELETE FROM targets WHERE playbook = ? AND at_ns < ?", (playbook, since_ns))
        return int(self._db.execute("SELECT count(*) FROM targets WHERE playbook = ?", (playbook,)).fetchone()[0])

    def settle_undo(self, run_id: str, step_id: str, state: str, reason: str, now_ns: int) -> bool:
        """False when it was not armed any more."""
        return (
            self._db.execute(
                "UPDATE undos SET state = ?, reason = ?, ended_ns = ?, attempts = attempts + (? != 'disarmed')"
                " WHERE run_id = ? AND step_id = ? AND state IN ('armed', 'failed')",
                (state, reason, now_ns, state, run_id, step_id),
            ).rowcount
            == 1
        )

    def prolong_undos(self, than: UndoRecord) -> list[tuple[str, str]]:
        """Puts off other runs' undos of the same action on the same container that come sooner than `than` would.

        What puts back the very same is left to `Ledger.superseding`. The (run, step) of those put off.
        """
        sooner = "due_ns IS NOT NULL AND (:due IS NULL OR due_ns < :due)"
        same = "parameters = :parameters AND saved = :saved"
        return self._db.execute(
            "UPDATE undos SET due_ns = :due WHERE state = 'armed' AND run_id != :run AND uses = :uses"
            f" AND container_id = :container AND {sooner} AND NOT ({same}) RETURNING run_id, step_id",
            {
                "due": than.due_ns, "run": than.run_id, "uses": than.uses, "container": than.container_id,
                "parameters": _json(than.parameters), "saved": _json(than.saved),
            },
        ).fetchall()  # fmt: skip

    def postpone_undo(self, run_id: str, step_id: str, reason: str) -> None:
        self._db.execute(
            "UPDATE undos SET reason = ?, attempts = attempts + 1 WHERE run_id = ? AND step_id = ?",
            (reason, run_id, step_id),
        )

    def decide(self, id: str, state: str, by: str, now_ns: int) -> bool:
        """False when it was decided before."""
        sql = "UPDATE approvals SET state = ?, by = ?, decided_ns = ? WHERE id = ? AND state = 'pending'"
        return self._db.execute(sql, (state, by, now_ns, id)).rowcount == 1

    def respond(self, line: bytes) -> None:
        """Puts one response event in line for the forwarder."""
        self._db.execute("INSERT INTO responses (line) VALUES (?)", (line,))

    def refuse_response(self, seq: int, reason: str) -> None:
        """The forwarder will never take it: kept and shown, no longer sent."""
        self._db.execute("UPDATE responses SET refused = ? WHERE seq = ?", (reason, seq))

    def audit(self, kind: str, **body: object) -> None:
        """Adds one row to the chain."""
        self.last_audit = audit.row(self.last_audit, time.time_ns(), kind, body)
        self._insert(self.last_audit, "INSERT")

    def set_flag(self, name: str, value: str | None) -> None:
        if value is None:
            self._db.execute("DELETE FROM flags WHERE name = ?", (name,))
        else:
            self._db.execute("INSERT OR REPLACE INTO flags VALUES (?, ?)", (name, value))

    def forget(self, before_ns: int) -> int:
        """Removes what ended before then; the audit stays. Returns how many runs went."""
        old = "SELECT id FROM runs WHERE ended_ns < ? AND id NOT IN (SELECT run_id FROM undos WHERE state = 'armed')"
        for table in ("steps", "undos", "approvals"):
            self._db.execute(f"DELETE FROM {table} WHERE run_id IN ({old})", (before_ns,))
        self._db.execute("DELETE FROM outbox WHERE state != 'pending' AND ended_ns < ?", (before_ns,))
        self._db.execute("DELETE FROM cooldowns WHERE until_ns < ?", (before_ns,))
        return self._db.execute(f"DELETE FROM runs WHERE id IN ({old})", (before_ns,)).rowcount

    def _insert(self, record: msgspec.Struct, verb: str) -> bool:
        fields = record.__struct_fields__
        values = [_json(v) if name in _JSON else v for name, v in ((name, getattr(record, name)) for name in fields)]
        sql = f"{verb} INTO {_TABLES[type(record)]} ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))})"
        return self._db.execute(sql, values).rowcount == 1


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def audit_of(directory: Path) -> list[AuditRow]:
    """All audit rows of a ledger that another process may hold. TocsinError when there is none."""
    file = directory / FILE
    if not file.exists():
        raise TocsinError(f"{directory} holds no ledger")
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        return _select(db, AuditRow, "ORDER BY seq")


def _select(
    db: sqlite3.Connection, type_: type[T], where: str, values: Sequence[Any] | Mapping[str, Any] = ()
) -> list[T]:
    fields = type_.__struct_fields__
    rows = db.execute(f"SELECT {', '.join(fields)} FROM {_TABLES[type_]} {where}", values)
    return [_record(type_, dict(zip(fields, row, strict=True))) for row in rows]


def _record(type_: type[T], row: dict[str, Any]) -> T:
    for name in _JSON & row.keys():
        row[name] = msgspec.json.decode(row[name])
    return msgspec.convert(row, type_, strict=False, builtin_types=(bytes,))
