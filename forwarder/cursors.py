"""The file that keeps every sink's cursor. Owns its form; a file that is behind only causes repeats."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from forwarder.files import replace

log = logging.getLogger(__name__)

Cursors = dict[str, dict[str, int]]
"""topic -> sink -> offset of the first record the sink has not taken."""


class CursorFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._saved = self._load()

    def last(self) -> Cursors:
        """What the file holds. Empty when it is missing or damaged: then every sink starts at the oldest record."""
        return {topic: dict(sinks) for topic, sinks in self._saved.items()}

    def save(self, current: Callable[[], Cursors]) -> None:
        """Writes what `current()` returns, if it differs; the cursors of sinks it does not name are kept.

        It is asked under the lock, so an older value never replaces a newer one. Raises OSError.
        """
        with self._lock:
            cursors = self.last()
            for topic, sinks in current().items():
                cursors.setdefault(topic, {}).update(sinks)
            if cursors != self._saved:
                replace(self._path, msgspec.json.encode(cursors), sync=False)
                self._saved = cursors

    def _load(self) -> Cursors:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Cursors)
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError as e:
            log.error(
                "%s is damaged (%s): every sink gets all kept records again", self._path, e,
                extra={"event.action": "cursors_damaged"},
            )  # fmt: skip
            return {}
