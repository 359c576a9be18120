"""What runs in a run directory: one supervisor by its lock, and what that says of its children. Owns both files."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pwd
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tocsin.errors import UsageError
from tocsin.link import in_use

log = logging.getLogger(__name__)

STATE_FILE = "up.json"
LOCK_FILE = "up.lock"


@contextlib.contextmanager
def only_one(run_dir: Path) -> Iterator[None]:
    """Holds the lock of this run directory, and forgets what was published in the end. UsageError says which pid
    holds it already.

    When the last supervisor was killed its children are given the time to notice.
    """
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(run_dir / LOCK_FILE, "a+", opener=_no_link) as lock:
        if not _locked(lock):
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise UsageError(
                f"{run_dir}: Tocsin runs here already (pid {owner}): see `tocsin status`, or set another run_dir"
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        _wait_for_orphans(run_dir)
        try:
            yield
        finally:
            (run_dir / STATE_FILE).unlink(missing_ok=True)


def _no_link(path: str, flags: int) -> int:
    """An unprivileged process may write to run_dir too: it must not lead root to another file."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def publish(run_dir: Path, state: Mapping[str, Any]) -> None:
    """Puts pids and restarts where `read_state` finds them: the old ones or the new ones, never half of them.

    On a full disk the old ones stay: that must not keep a child from being started again.
    """
    temporary = run_dir / f"{STATE_FILE}.new"
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "x") as new:  # never through a link: an unprivileged process may write to run_dir too
            new.write(json.dumps(state))
        temporary.replace(run_dir / STATE_FILE)
    except OSError as e:
        log.warning("%s cannot be written (%s): `tocsin status` shows older pids", temporary, e.strerror)


def read_state(run_dir: Path) -> dict[str, Any] | None:
    """What the living supervisor last published; None when none runs here."""
    try:
        state = json.loads((run_dir / STATE_FILE).read_text())
    except (OSError, ValueError):
        return None
    # A supervisor that waits for the orphans of a killed one has the lock, and the dead one's file still lies there.
    return state if isinstance(state, dict) and state.get("pid") == _holder(run_dir) else None


def user_of(pid: int | None) -> str | None:
    """Name of the user that a process runs as, its number when it has no name; None when there is no such process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    uid = int(status.partition("\nUid:")[2].split()[1])  # the effective one; the directory's owner tells less
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _holder(run_dir: Path) -> int | None:
    """Pid of the living supervisor: its lock ends with it, while its pid may linger or be somebody else's by now."""
    try:
        with open(run_dir / LOCK_FILE) as lock:
            text = lock.read().strip()
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(text) if text.isdecimal() else None
    except OSError:
        return None
    return None


def _locked(lock: IO[str]) -> bool:
    for _ in range(5):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # a `tocsin status` may be looking just now
        else:
            return True
    return False


def _wait_for_orphans(run_dir: Path, timeout_s: float = 20.0) -> None:
    """A state file without its supervisor means that it was killed: its children are stopping just now."""
    if not (run_dir / STATE_FILE).exists():
        return
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and any(in_use(path) for path in run_dir.glob("*.sock")):
        time.sleep(0.05)
    (run_dir / STATE_FILE).unlink(missing_ok=True)
