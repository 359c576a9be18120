"""What is SQLite's own: kill -9, a full disk, a lock, versions, retention, readers beside the writer."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ecs_mappings.event import Ecs, Event, EventMeta, Process, encode
from store import Options, Outcome, Query
from store.housekeeping import CHUNK, Housekeeping
from store.sqlite import SqliteStore, open_store
from store.sqlite_file import connect, migrations
from tocsin.errors import RetryLater, TocsinError, UsageError

NOW = datetime.now(UTC)


def document(event_id: str, *, age_s: float = 0, dataset: str = "tocsin.process", padding: int = 0) -> bytes:
    meta = EventMeta(id=event_id, category=["process"], type=["start"], action="exec", dataset=dataset)
    at = NOW - timedelta(seconds=age_s)
    return encode(Event(timestamp=at, ecs=Ecs(), event=meta, process=Process(command_line="x" * padding)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[], SqliteStore]]:
    stores: list[SqliteStore] = []

    def make() -> SqliteStore:
        stores.append(SqliteStore(path, Options()))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


_WRITER = """
import sys
from pathlib import Path
from store import Options
from store.sqlite import SqliteStore
from test_sqlite import document
store = SqliteStore(Path(sys.argv[1]), Options())
number = 0
while True:
    answers = store.write([document(f"e-{n}") for n in range(number, number + 50)])
    number += len(answers)
    print(number, flush=True)
"""


def test_what_was_answered_survives_kill_9(path: Path, opened: Callable[[], SqliteStore]) -> None:
    here = Path(__file__)
    environ = {**os.environ, "PYTHONPATH": f"{here.parents[2]}:{here.parent}"}
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, env=environ) as writer:
        assert writer.stdout is not None
        answered = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        answered += [int(line) for line in writer.stdout.read().splitlines()]
    store = opened()
    assert store.count(Query()) >= answered[-1]
    again = store.write([document(f"e-{n}") for n in range(answered[-1] + 50)])
    assert [a.outcome for a in again[: answered[-1]]] == [Outcome.EXISTS] * answered[-1]
    assert store.count(Query()) == answered[-1] + 50 == store.status().documents


def test_full_disk_is_retry_later_and_loses_nothing(opened: Callable[[], SqliteStore]) -> None:
    store = opened()
    store.write([document("first")])
    assert store._writer is not None
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    batch = [document(f"e-{n}", padding=1000) for n in range(100)]
    with pytest.raises(RetryLater, match="full"):
        store.write(batch)
    assert store.count(Query()) == store.status().documents == 1
    store._writer.execute("PRAGMA max_page_count = 1000000")
    assert {a.outcome for a in store.write(batch)} == {Outcome.CREATED}
    assert store.count(Query()) == store.status().documents == 101


def test_locked_file_is_retry_later(
    path: Path, opened: Callable[[], SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.sqlite_file.BUSY_TIMEOUT_S", 0.1)
    store = opened()
    store.write([document("first")])
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryLater, match=r"events\.db.*locked"):
        store.write([document("second")])
    assert store.count(Query()) == 1
    other.execute("ROLLBACK")
    other.close()
    assert store.write([document("second")])[0].outcome is Outcome.CREATED


def test_readers_of_another_process_see_what_is_written(path: Path, opened: Callable[[], SqliteStore]) -> None:
    writer, reader = opened(), opened()
    for number in range(5):
        writer.write([document(f"e-{number}")])
        assert reader.count(Query()) == number + 1


def test_asking_makes_no_file(path: Path, opened: Callable[[], SqliteStore]) -> None:
    store = opened()
    assert store.search(Query()).documents == []
    assert store.count(Query()) == 0
    assert store.get("x") is None
    assert store.status().reachable
    assert not path.exists()


def test_file_is_for_its_owner_only(path: Path, opened: Callable[[], SqliteStore]) -> None:
    opened().write([document("x")])
    assert {p.stat().st_mode & 0o077 for p in path.parent.iterdir()} == {0}


def test_newer_version_is_refused(path: Path, opened: Callable[[], SqliteStore]) -> None:
    opened().write([document("x")])
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    db.close()
    with pytest.raises(TocsinError, match="newer"):
        opened().write([document("y")])
    with pytest.raises(TocsinError, match="newer"):
        opened().search(Query())
    assert not opened().status().reachable
    assert "newer" in opened().status().problem


def test_older_version_is_brought_up_to_date_by_the_writer(path: Path, opened: Callable[[], SqliteStore]) -> None:
    path.parent.mkdir(exist_ok=True)
    with sqlite3.connect(path) as db:  # version 0: a file without tables
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("VACUUM")
    db.close()
    with pytest.raises(TocsinError, match="start the forwarder"):
        opened().search(Query())
    assert opened().status().reachable
    assert "start the forwarder" in opened().status().problem
    opened().write([document("x")])
    assert opened().count(Query()) == 1


@pytest.mark.parametrize("version", range(len(migrations())))
def test_migration_from_every_version(
    path: Path, opened: Callable[[], SqliteStore], monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    steps = migrations()
    with monkeypatch.context() as older:
        older.setattr("store.sqlite_file.migrations", lambda: steps[:version])
        from store.sqlite_file import create

        create(path).close()
    opened().write([document("x")])
    assert opened().get("x") is not None


def test_no_database_is_a_problem_that_names_the_file(path: Path, opened: Callable[[], SqliteStore]) -> None:
    path.write_bytes(b"no database, but long enough to be looked at " * 50)
    with pytest.raises(RetryLater, match=r"events\.db: file is not a database"):
        opened().write([document("x")])
    assert "not a database" in opened().status().problem


def test_url_names_the_file(tmp_path: Path) -> None:
    assert open_store("sqlite", Options(directory=tmp_path)).status().place == str(tmp_path / "events.db")
    assert open_store("sqlite:/x/y.db", Options()).status().place == "/x/y.db"
    with pytest.raises(UsageError, match="names no file"):
        open_store("sqlite:", Options())


def _retain(path: Path, retain_s: float, retain_bytes: int) -> int:
    db = connect(path)
    try:
        return Housekeeping(path, retain_s, retain_bytes).retain(db, NOW.timestamp())
    finally:
        db.close()


def test_old_events_go_and_alerts_stay_longer(path: Path, opened: Callable[[], SqliteStore]) -> None:
    store = opened()
    ages = [0, 50, 150, 350, 450]
    store.write([document(f"event-{age}", age_s=age) for age in ages])
    store.write([document(f"alert-{age}", age_s=age, dataset="tocsin.alert") for age in ages])
    assert _retain(path, retain_s=100, retain_bytes=2**40) == 4
    left = {event.event.id for event in store.search(Query()).events}
    assert left == {"event-0", "event-50", "alert-0", "alert-50", "alert-150", "alert-350"}
    assert store.status().removed == {"age": 4, "size": 0}
    assert store.status().documents == 6


def test_too_large_a_file_loses_its_oldest_events_first(path: Path, opened: Callable[[], SqliteStore]) -> None:
    store = opened()
    count = 4 * CHUNK
    store.write([document("alert", age_s=10**6, dataset="tocsin.alert")])
    store.write([document(f"e-{n:05}", age_s=count - n, padding=500) for n in range(count)])
    before = store.status().size_bytes
    removed = _retain(path, retain_s=10**9, retain_bytes=before // 2)
    status = store.status()
    assert removed == status.removed["size"] == count + 1 - status.documents
    assert before // 4 < status.size_bytes <= before // 2
    left = sorted(event.event.id for event in store.search(Query(limit=10_000)).events)
    assert left == ["alert"] + [f"e-{n:05}" for n in range(removed, count)]


def test_housekeeping_runs_beside_the_writer(
    path: Path, opened: Callable[[], SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.housekeeping.CHECKPOINT_EVERY_S", 0.01)
    day_s = 86_400  # NOW is when the tests began, perhaps minutes ago
    store = SqliteStore(path, Options(retain_s=day_s))
    store.write([document("old", age_s=2 * day_s), document("new")])
    deadline = time.monotonic() + 10
    while store.count(Query()) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    store.close()
    assert opened().status().removed["age"] == 1
