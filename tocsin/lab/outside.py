"""An "outside" that never leaves the machine: a documentation address (TEST-NET-3) on an interface of our own.

The interface is a dummy, or, on kernels built without those, a bridge without ports: nothing is behind either.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading

from tocsin.errors import TocsinError
from tocsin.lab import runs

ADDRESS = "203.0.113.10"
PORT = 4444
HOLD_S = 0.5


class Outside:
    """A listener at ADDRESS:port that accepts and counts what connects, and hangs up after HOLD_S."""

    def __init__(self, run: str, port: int = PORT) -> None:
        self.port = port
        self.accepted = 0
        _ensure_interface(run)
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # another lab may run beside this one
        self._listener.bind((ADDRESS, port))
        self._listener.listen(64)
        threading.Thread(target=self._accept, name="lab-outside", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            hang_up = threading.Timer(HOLD_S, connection.close)
            hang_up.daemon = True
            hang_up.start()


def remove_interfaces(run: str) -> None:
    """Those of this run only."""
    for name, owner in interfaces().items():
        if owner == run:
            _ip("link", "delete", name)


def interfaces() -> dict[str, str]:
    """Name -> run, of every interface a lab made; the run stands in the interface's alias."""
    listing = _ip("-o", "link", "show")
    return dict(re.findall(rf"^[0-9]+: ([^:@]+).* alias {re.escape(runs.LABEL)}=(\S+)", listing, re.MULTILINE))


def _ensure_interface(run: str) -> None:
    if run in interfaces().values():
        return
    name = _free_name()
    try:
        _ip("link", "add", name, "type", "dummy")
    except TocsinError:
        _ip("link", "add", name, "type", "bridge")
    _ip("link", "set", name, "alias", f"{runs.LABEL}={run}")
    _ip("address", "add", f"{ADDRESS}/32", "dev", name)
    _ip("link", "set", name, "up")


def _free_name() -> str:
    taken = {name for _, name in socket.if_nameindex()}
    candidates = (f"tocsin{number}" for number in range(os.getpid(), os.getpid() + 10_000))
    return next(name for name in candidates if name not in taken)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise TocsinError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
