"""The forwarder as a whole: owns the data from the moment it is taken until every sink has it. Only wires the parts."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from forwarder import inbox
from forwarder.cursors import CursorFile, Cursors
from forwarder.dead_letters import DeadLetters, Letter
from forwarder.deliver import Lane
from forwarder.limits import Limits
from forwarder.losses import Loss, Losses
from forwarder.position import Position
from forwarder.reader import offset_since
from forwarder.room import Room
from forwarder.sinks import EVENTS, TOPICS, Sink
from forwarder.spool import Dropped, Spool
from tocsin.errors import Rejected, RetryLater, TocsinError
from tocsin.link import Routes

log = logging.getLogger(__name__)

_INBOX = "inbox"
"""Holds the dead letters that reached no topic; no sink may have this name."""
_SETTLE_S = 5.0


class Forwarder:
    """Everything the program needs: make it, `start`, serve `routes()`, `stop`. Safe to share between threads."""

    def __init__(
        self, directory: Path, sinks: Mapping[str, Sink], limits: Limits | None = None, boot_id: str | None = None
    ) -> None:
        """Opens the spool in `directory` (made if missing) and repairs it.

        TocsinError when another forwarder has it open, or the system does not let us read or write there.

        A sink that was not here before starts at the oldest record that is kept.
        """
        _check(sinks)
        self._limits = limits or Limits()
        self._lock_fd = _lock(directory)
        self._taking = False
        self._losses = Losses()
        self._cursor_file = CursorFile(directory / "cursors.json")
        try:
            self._spools = self._open_spools(directory, boot_id or _boot_id())
        except OSError as e:
            os.close(self._lock_fd)
            raise TocsinError(f"the spool in {directory} cannot be opened: {e}") from e
        self._letters = {
            name: DeadLetters(
                directory / "dead_letters", name, self._limits.dead_letter_bytes, partial(self._letters_dropped, name)
            )
            for name in [_INBOX, *sinks]
        }
        self._lanes = [self._lane(topic, name, sink) for name, sink in sinks.items() for topic in sink.topics]
        self._room = Room(self._spools, self._delivered, self._limits.retain_s)
        self._keeper = threading.Thread(target=self._keep, name="spool-keeper", daemon=True)
        self._stopped = threading.Event()
        self._trouble: str | None = None
        for topic, spool in self._spools.items():
            spool.on_drop = partial(self._dropped, topic)

    def routes(self) -> Routes:
        """For `tocsin.link.serving`."""
        return inbox.routes(self)

    def start(self) -> None:
        """Starts delivery, and takes records from now on."""
        for lane in self._lanes:
            lane.start()
        self._keeper.start()
        self._taking = True
        log.info("the forwarder has started", extra={"event.action": "started"})

    def stop(self, timeout_s: float = 5.0) -> None:
        """Takes no more, delivers what the sinks take within `timeout_s`, then syncs all to the disk."""
        if self._stopped.is_set():
            return
        self._taking = False
        deadline = time.monotonic() + timeout_s
        while any(lane.busy for lane in self._lanes) and time.monotonic() < deadline:
            time.sleep(0.005)
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            lane.join(max(0.0, deadline - time.monotonic()))
        self._stopped.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        self._maintain(cursors=True)
        for spool in self._spools.values():
            self._tried(spool.close)
        os.close(self._lock_fd)
        log.info("the forwarder has stopped", extra={"event.action": "stopped"})

    def take(self, topic: str, lines: Sequence[bytes], refused: Sequence[Letter] = ()) -> int:
        """Takes records (non-empty, no newline, at most MAX_DOCUMENT_BYTES each); returns the first one's offset.

        When it returns they survive kill -9. Raises RetryLater when they cannot be written now, or while stopping.
        """
        if not self._taking:
            raise RetryLater("the forwarder is stopping", 1.0)
        self._letters[_INBOX].add(refused)
        return self._room.append(topic, lines)

    def rewind(
        self, topic: str, sink: str, *, offset: int | None = None, seconds: float | None = None
    ) -> dict[str, int]:
        """Delivers again from `offset` on, or what was received within the last `seconds`.

        Never moves a cursor forward. Returns `offset` (where the sink now stands: the oldest kept record, when more was
        asked for), `oldest` and `next`. When it returns, no batch from before can reach the sink any more, and not even
        kill -9 brings the old cursor back.
        """
        lane = next((lane for lane in self._lanes if (lane.topic, lane.name) == (topic, sink)), None)
        if lane is None:
            known = ", ".join(f"{x.topic} to {x.name}" for x in self._lanes)
            raise Rejected(f"nothing is delivered from {topic[:40]!r} to {sink[:40]!r}; there is {known}")
        spool = self._spools[topic]
        if offset is None:
            offset = offset_since(spool, max(0, time.time_ns() - int((seconds or 0.0) * 1e9)))
        now_at = lane.position.back(max(offset, spool.first_offset))
        self._save_cursors()
        lane.wake()
        if not lane.settled(_SETTLE_S):
            raise RetryLater(f"{sink} is still busy with an earlier batch; ask again", 0.5)
        return {"offset": now_at, "oldest": spool.first_offset, "next": spool.next_offset}

    def resend(self, sink: str) -> int:
        """Puts a sink's dead letters at the end of their topics again, for all sinks; returns how many."""
        if sink not in self._letters:
            raise Rejected(f"there is no sink {sink[:40]!r}; there is {', '.join(self._letters)}")
        return self._letters[sink].resend(self.take)

    def status(self) -> dict[str, Any]:
        """Everything there is to know, as JSON."""
        sinks: dict[str, dict[str, Any]] = {}
        stored: dict[str, int] = {}
        for lane in self._lanes:
            lost = self._losses.count(lane.topic, lane.name)
            sinks.setdefault(lane.name, {})[lane.topic] = {**lane.status(), "lost": lost}
            stored |= lane.acknowledged.copy()
        return {
            "taking": self._taking,
            "trouble": self._trouble,
            "topics": {topic: _spool_status(spool) for topic, spool in self._spools.items()},
            "sinks": sinks,
            "dead_letters": {
                name: {"kept": letters.kept, "added": letters.added, "last_reason": letters.last_reason}
                for name, letters in self._letters.items()
            },
            "stored": stored,
            "losses": self._losses.recent(),
        }

    # inside

    def _open_spools(self, directory: Path, boot_id: str) -> dict[str, Spool]:
        cursors = self._cursor_file.last()
        return {
            topic: Spool(
                directory / topic,
                max_bytes=self._limits.share(topic),
                segment_bytes=self._limits.segment(topic),
                boot_id=boot_id,
                at_least=max(cursors.get(topic, {}).values(), default=0),
            )
            for topic in TOPICS
        }

    def _lane(self, topic: str, name: str, sink: Sink) -> Lane:
        spool = self._spools[topic]
        cursor = self._cursor_file.last().get(topic, {}).get(name, spool.first_offset)
        lose = partial(self._lose, topic, name, "damaged or missing in the spool")
        if spool.jumped:
            tail = range(spool.next_offset - 1, spool.next_offset)
            reason = "the machine stopped without warning"
            self._losses.add(Loss(topic, name, reason, tail.start, tail.stop, None, *spool.span(tail)))
        return Lane(topic, name, sink, spool, Position(cursor), self._letters[name], lose, self._limits)

    def _delivered(self, topic: str) -> int:
        cursors = [lane.position.cursor for lane in self._lanes if lane.topic == topic]
        return min(cursors, default=self._spools[topic].next_offset)

    def _dropped(self, topic: str, dropped: Dropped) -> None:
        """A segment is about to go: some sinks may not have had all of it."""
        for lane in self._lanes:
            if lane.topic == topic:
                self._lose(topic, lane.name, "the spool was full", lane.position.skip(dropped.end))

    def _lose(self, topic: str, sink: str, reason: str, lost: range) -> None:
        spool = self._spools[topic]
        count = spool.missing(lost.start, lost.stop)
        if topic == EVENTS:
            self._losses.retell(lost)
        if count > 0:
            self._losses.add(Loss(topic, sink, reason, lost.start, lost.stop, count, *spool.span(lost)))

    def _letters_dropped(self, sink: str, count: int) -> None:
        now = time.time_ns()
        self._losses.add(Loss("dead letters", sink, "too many dead letters", 0, 0, count, now, now))

    def _keep(self) -> None:
        """The background: what must not be on the live path."""
        cursors_at = 0.0
        while not self._stopped.wait(self._limits.sync_every_s):
            cursors = time.monotonic() - cursors_at >= self._limits.cursors_every_s
            if cursors:
                cursors_at = time.monotonic()
            self._maintain(cursors)

    def _maintain(self, cursors: bool) -> None:
        steps = [self._report, self._room.expire, *(spool.sync for spool in self._spools.values())]
        if cursors:
            steps.append(self._save_cursors)
        # Each for itself: a full disk must not keep the rest from being synced.
        troubles = [text for step in steps if (text := self._tried(step)) is not None]
        self._trouble = troubles[0] if troubles else None

    def _tried(self, step: Callable[[], None]) -> str | None:
        """What went wrong in the step; it is logged when trouble begins, not each time."""
        try:
            step()
        except (OSError, RetryLater) as e:
            if self._trouble is None:
                log.error("the spool is in trouble: %s", e, extra={"event.action": "spool_trouble"})
            return str(e)
        return None

    def _report(self) -> None:
        """Losses become events; the cursors that passed them are saved, or a restart would count them again."""
        if self._losses.report(partial(self._room.append, EVENTS)):
            self._save_cursors()

    def _save_cursors(self) -> None:
        try:
            self._cursor_file.save(self._cursors)
        except OSError as e:
            raise RetryLater(f"the cursors cannot be written: {e.strerror}", 1.0) from e

    def _cursors(self) -> Cursors:
        cursors: Cursors = {}
        for lane in self._lanes:
            cursors.setdefault(lane.topic, {})[lane.name] = lane.position.cursor
        return cursors


def _check(sinks: Mapping[str, Sink]) -> None:
    """Names become file names, so they must be plain."""
    for name, sink in sinks.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or name == _INBOX or not set(sink.topics) <= set(TOPICS):
            raise ValueError(f"{name!r} cannot be a sink of {list(sink.topics)}")


def _spool_status(spool: Spool) -> dict[str, int]:
    return {
        "first": spool.first_offset,
        "next": spool.next_offset,
        "bytes": spool.size_bytes,
        "segments": spool.segment_count,
        "appended": spool.appended,
    }


def _lock(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(fd)
        raise TocsinError(f"{directory} is in use: another forwarder has it open; stop it, or set another one") from e
    return fd


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
