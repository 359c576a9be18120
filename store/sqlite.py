"""The default store: one SQLite file in WAL mode. Many processes may read while the forwarder writes.

The file is made by the first write, so asking never leaves a file behind that the writer may not own.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ecs_mappings.event import Event
from store.document import read
from store.housekeeping import Housekeeping, used_bytes
from store.protocol import Options, Outcome, Page, Query, Store, StoreStatus, Written
from store.query import Position, cursor, micros, moment
from store.sqlite_file import OutdatedFile, connect_reader, create
from store.sqlite_query import where
from tocsin.errors import Rejected, RetryLater, TocsinError, UsageError

_INSERT = """INSERT INTO event (id, at, dataset, kind, action, container_id, container_name, rule_id, alert_group, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_KNOWN = "SELECT id FROM event WHERE id IN (SELECT value FROM json_each(?))"

Row = tuple[str, int, str, str, str, str | None, str | None, str | None, str | None, str]


def open_store(url: str, options: Options) -> Store:
    """`sqlite` keeps events.db in the options' directory; `sqlite:PATH` names the file."""
    path = url.partition(":")[2]
    if not path and ":" in url:
        raise UsageError(f"{url!r} names no file: write sqlite or sqlite:/path/file.db")
    return SqliteStore(Path(path) if path else options.directory / "events.db", options)


class SqliteStore:
    """Keeps the promises of `Store` in one file."""

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self._options = options
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._housekeeping: Housekeeping | None = None

    def write(self, documents: Sequence[bytes]) -> list[Written]:
        answers: list[Written] = []
        rows: dict[str, Row] = {}
        ids: list[str | None] = []
        for document in documents:
            try:
                event = read(document)
            except Rejected as e:
                ids.append(None)
                answers.append(Written(Outcome.REJECTED, str(e)))
                continue
            first = event.event.id not in rows
            rows.setdefault(event.event.id, _row(event, document))
            ids.append(event.event.id)
            answers.append(Written(Outcome.CREATED if first else Outcome.EXISTS))
        known = self._insert(rows)
        return [Written(Outcome.EXISTS) if x in known else a for x, a in zip(ids, answers, strict=True)]

    def _insert(self, rows: dict[str, Row]) -> set[str]:
        """Inserts the rows that are not there; returns the ids that were."""
        with self._writing() as db:
            known = {x for (x,) in db.execute(_KNOWN, (msgspec.json.encode(list(rows)).decode(),))}
            new = [row for row_id, row in rows.items() if row_id not in known]
            db.executemany(_INSERT, new)
            db.execute("UPDATE counter SET value = value + ? WHERE name = 'documents'", (len(new),))
        return known

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, whole or not at all. Whatever keeps the file from taking it now is RetryLater."""
        with self._write_lock:
            try:
                db = self._open_writer()
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    # SQLite itself has rolled back already when the disk was full.
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
            except (sqlite3.DatabaseError, OSError) as e:
                raise RetryLater(f"{self.path}: {getattr(e, 'strerror', None) or e}") from e

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = create(self.path)
            self._housekeeping = Housekeeping(self.path, self._options.retain_s, self._options.retain_bytes)
            self._housekeeping.start()
        return self._writer

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """The reader, or None while there is no file."""
        with self._read_lock:
            try:
                if self._reader is None and self.path.exists() and self.path.stat().st_size:
                    self._reader = connect_reader(self.path)
                yield self._reader
            except (sqlite3.DatabaseError, OSError) as e:
                raise RetryLater(f"{self.path}: {getattr(e, 'strerror', None) or e}") from e

    def search(self, query: Query) -> Page:
        clause = where(query, paging=True)
        direction = "DESC" if query.order == "desc" else "ASC"
        order = f"ORDER BY at {direction}, id {direction} LIMIT ?"
        with self._reading() as db:
            if db is None:
                return Page([], None)
            rows = db.execute(
                f"SELECT body, at, id FROM event WHERE {clause} {order}", (*clause.values, query.limit + 1)
            ).fetchall()
        page = rows[: query.limit]
        more = cursor(Position(page[-1][1], page[-1][2])) if len(rows) > query.limit else None
        return Page([body.encode() for body, _, _ in page], more)

    def count(self, query: Query) -> int:
        clause = where(query, paging=False)
        with self._reading() as db:
            if db is None:
                return 0
            return int(db.execute(f"SELECT count(*) FROM event WHERE {clause}", clause.values).fetchone()[0])

    def get(self, event_id: str) -> bytes | None:
        with self._reading() as db:
            row = db.execute("SELECT body FROM event WHERE id = ?", (event_id,)).fetchone() if db else None
        return row[0].encode() if row else None

    def refresh(self) -> None:
        """Nothing to do: a committed transaction is visible."""

    def status(self) -> StoreStatus:
        try:
            with self._reading() as db:
                return self._status(db)
        except TocsinError as e:
            # An outdated file is one that the writer will mend: it must not keep the writer from starting.
            usable = isinstance(e, OutdatedFile)
            return StoreStatus(kind="sqlite", place=str(self.path), reachable=usable, problem=str(e))

    def _status(self, db: sqlite3.Connection | None) -> StoreStatus:
        version = f"SQLite {sqlite3.sqlite_version}"
        if db is None:
            return StoreStatus(kind="sqlite", place=str(self.path), reachable=True, version=version)
        counters = dict(db.execute("SELECT name, value FROM counter").fetchall())
        oldest, newest = (db.execute(f"SELECT {f}(at) FROM event").fetchone()[0] for f in ("min", "max"))
        return StoreStatus(
            kind="sqlite",
            place=str(self.path),
            reachable=True,
            documents=counters["documents"],
            size_bytes=used_bytes(db),
            oldest=None if oldest is None else moment(oldest),
            newest=None if newest is None else moment(newest),
            version=version,
            removed={"age": counters["removed_age"], "size": counters["removed_size"]},
        )

    def close(self) -> None:
        if self._housekeeping:
            self._housekeeping.stop()
            self._housekeeping = None
        for lock, name in ((self._write_lock, "_writer"), (self._read_lock, "_reader")):
            with lock:
                if db := getattr(self, name):
                    db.close()
                    setattr(self, name, None)


def _row(event: Event, document: bytes) -> Row:
    container, rule, tocsin = event.container, event.rule, event.tocsin
    alert = tocsin.alert if tocsin else None
    return (
        event.event.id,
        micros(event.timestamp),
        event.event.dataset,
        event.event.kind,
        event.event.action,
        container.id if container else None,
        (container.name or None) if container else None,
        (rule.id or None) if rule else None,
        alert.group if alert else None,
        document.decode(),
    )
