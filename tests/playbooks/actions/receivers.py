"""HTTP receivers on loopback that behave badly on purpose."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Taken:
    """One request, and when it came (time.monotonic)."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float


Behaviour = Callable[[socket.socket], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    def behave(s: socket.socket) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        s.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return behave


def close(s: socket.socket) -> None:
    """Ends without a word."""


def hang(s: socket.socket) -> None:
    """Says nothing until the other side gives up."""
    with contextlib.suppress(OSError):
        s.recv(1)


def slowly(text: bytes, every_s: float = 0.05) -> Behaviour:
    """Byte by byte, so that no single read ever times out."""

    def behave(s: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in text:
                s.sendall(bytes([byte]))
                time.sleep(every_s)

    return behave


class Receiver:
    """Serves on 127.0.0.1 until closed: the n-th request meets the n-th behaviour, all later ones a plain 200."""

    def __init__(self, *script: Behaviour, port: int = 0) -> None:
        self.taken: list[Taken] = []
        self._script = list(script)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.02)
        self.port: int = self._listener.getsockname()[1]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def ids(self) -> list[str]:
        return [t.headers["x-tocsin-delivery"] for t in self.taken]

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            connection.settimeout(5)
            self.taken.append(_read(connection))
            behave = self._script.pop(0) if self._script else answer(200)
            behave(connection)


def _read(connection: socket.socket) -> Taken:
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        buffer += _more(connection)
    head, _, body = buffer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += _more(connection)
    return Taken(first.split()[1], headers, body, time.monotonic())


def _more(connection: socket.socket) -> bytes:
    if not (more := connection.recv(65536)):
        raise ConnectionError("the sender has closed")
    return more
