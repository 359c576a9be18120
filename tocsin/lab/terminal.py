"""A person at a keyboard: `docker exec -it` through a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import time

from tocsin.errors import TocsinError
from tocsin.lab.client import program

MAX_SHOWN_BYTES = 64 * 1024


class Terminal:
    """One `docker exec -it CONTAINER COMMAND...`. Closing it hangs up, as closing a window does."""

    def __init__(self, container: str, *command: str) -> None:
        self._screen, keyboard = pty.openpty()
        self.shown = b""
        """What the terminal showed, newest MAX_SHOWN_BYTES."""
        try:
            self._client = subprocess.Popen(
                [program(), "exec", "-it", container, *command],
                stdin=keyboard, stdout=keyboard, stderr=keyboard, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(keyboard)

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str, timeout_s: float = 10.0) -> None:
        """Reads until `text` was shown. TocsinError after `timeout_s`, or when the command ended before."""
        deadline = time.monotonic() + timeout_s
        while text.encode() not in self.shown:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise TocsinError(f"the terminal never showed {text!r}, only {self.shown[-200:]!r}")

    def finish(self, timeout_s: float = 10.0) -> int:
        """Reads until the command ends; its exit code. TocsinError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        try:
            return self._client.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as e:
            raise TocsinError(f"the command in the terminal still runs after {timeout_s:g} s") from e

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._client.pid, signal.SIGKILL)
        self._client.wait()
        with contextlib.suppress(OSError):
            os.close(self._screen)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, timeout_s: float) -> bool:
        """False at the end, or when nothing came within `timeout_s`."""
        if not select.select([self._screen], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._screen, 4096)
        except OSError:  # EIO: the other end is closed
            return False
        self.shown = (self.shown + data)[-MAX_SHOWN_BYTES:]
        return bool(data)
