"""Opens the SQLite file: pragmas and migrations. Knows no events."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from tocsin.errors import TocsinError

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process before it fails as locked."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_WAL_PAGES = 16_384  # 64 MiB: only a backstop, housekeeping moves the log into the file off the write path.


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that exists, in autocommit mode. Share it between threads under a lock of your own."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    return db


class OutdatedFile(TocsinError):
    """The file is older than this program; the next write brings it up to date."""


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raises OutdatedFile, or TocsinError when the file is newer than this program."""
    db = connect(path)
    db.execute("PRAGMA query_only = ON")
    version = _version(db)
    if version != len(migrations()):
        db.close()
        problem = f"{path} is of version {version}, this Tocsin reads version {len(migrations())}"
        if version < len(migrations()):
            raise OutdatedFile(f"{problem}: start the forwarder once, it brings the file up to date")
        raise TocsinError(f"{problem}: use the newer Tocsin")
    return db


def create(path: Path) -> sqlite3.Connection:
    """A connection that writes; makes the file or brings it up to date first. Several processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    db = connect(path)
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only takes effect while the file is empty
    db.execute("PRAGMA journal_mode = WAL")
    _migrate(db, path)
    return db


def migrations() -> list[str]:
    """The SQL files in order. File NNNN_what.sql brings the file from version NNNN - 1 to NNNN."""
    files = sorted(p for p in _MIGRATIONS.iterdir() if re.fullmatch(r"\d{4}_\w+\.sql", p.name))
    return [file.read_text() for file in files]


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    steps = migrations()
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)
        if version > len(steps):
            raise TocsinError(f"{path} was written by a newer Tocsin (version {version}, known: {len(steps)})")
        for step in steps[version:]:
            for statement in _statements(step):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(steps)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _statements(script: str) -> list[str]:
    """The script's statements one by one: executescript would commit what came before it."""
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
