"""Shape of the ledger's tables. A change is a new entry at the end; entries that were released never change."""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, alert_id TEXT NOT NULL, alert BLOB NOT NULL, playbook TEXT NOT NULL,
        revision TEXT NOT NULL, mode TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, rule TEXT,
        container_id TEXT, container_name TEXT, key TEXT, tripped INTEGER NOT NULL, created_ns INTEGER NOT NULL,
        ended_ns INTEGER
    ) STRICT;
    CREATE INDEX runs_unfinished ON runs (state, playbook, key) WHERE state IN ('queued', 'running', 'waiting');
    CREATE INDEX runs_by_time ON runs (created_ns);
    CREATE TABLE steps (
        run_id TEXT NOT NULL, step_id TEXT NOT NULL, uses TEXT NOT NULL, claim_id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL, outcome TEXT, reason TEXT NOT NULL, verified INTEGER, would_change INTEGER,
        attempts INTEGER NOT NULL, data TEXT NOT NULL, saved TEXT NOT NULL, begun_ns INTEGER NOT NULL,
        acted_ns INTEGER, verified_ns INTEGER, ended_ns INTEGER,
        PRIMARY KEY (run_id, step_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE undos (
        run_id TEXT NOT NULL, step_id TEXT NOT NULL, uses TEXT NOT NULL, parameters TEXT NOT NULL,
        saved TEXT NOT NULL, container_id TEXT, due_ns INTEGER, state TEXT NOT NULL, reason TEXT NOT NULL,
        attempts INTEGER NOT NULL, ended_ns INTEGER,
        PRIMARY KEY (run_id, step_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX undos_armed ON undos (state) WHERE state = 'armed';
    CREATE TABLE approvals (
        id TEXT PRIMARY KEY, run_id TEXT NOT NULL, step_id TEXT NOT NULL, question TEXT NOT NULL,
        asked_ns INTEGER NOT NULL, deadline_ns INTEGER NOT NULL, on_timeout TEXT NOT NULL, state TEXT NOT NULL,
        by TEXT, decided_ns INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE cooldowns (
        playbook TEXT NOT NULL, key TEXT NOT NULL, until_ns INTEGER NOT NULL, PRIMARY KEY (playbook, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE targets (
        playbook TEXT NOT NULL, target TEXT NOT NULL, at_ns INTEGER NOT NULL, PRIMARY KEY (playbook, target)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE outbox (
        id TEXT PRIMARY KEY, run_id TEXT NOT NULL, step_id TEXT NOT NULL, sender TEXT NOT NULL, url TEXT NOT NULL,
        headers TEXT NOT NULL, body BLOB NOT NULL, sign_with TEXT, max_attempts INTEGER, backoff_s REAL NOT NULL,
        factor REAL NOT NULL, give_up_ns INTEGER NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
        next_ns INTEGER NOT NULL, created_ns INTEGER NOT NULL, reason TEXT NOT NULL, ended_ns INTEGER
    ) STRICT;
    CREATE INDEX outbox_pending ON outbox (next_ns) WHERE state = 'pending';
    CREATE TABLE responses (seq INTEGER PRIMARY KEY AUTOINCREMENT, line BLOB NOT NULL, refused TEXT) STRICT;
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
        previous TEXT NOT NULL, hash TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    CREATE TABLE flags (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    """,
)
