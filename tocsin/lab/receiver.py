"""A webhook receiver on loopback that checks what it gets. It can also misbehave, as real ones do."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAX_BODY_BYTES = 1 << 20
REPLAY_WINDOW_S = 300


@dataclass(frozen=True)
class Answer:
    """How to answer one request: after `delay_s`, with `status` and perhaps Retry-After."""

    status: int = 200
    delay_s: float = 0.0
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Received:
    at: float
    """time.time()."""
    id: str
    """The delivery's stable id."""
    signed: bool
    """The signature is right, and so fresh that it is no replay."""
    body: Any
    answer: Answer


class Receiver:
    """Listens on 127.0.0.1 while the block lasts; before, its URL is known and refuses connections.

    `behave` chooses the answer to the n-th request (from 0).
    """

    def __init__(self, behave: Callable[[int], Answer] = lambda n: Answer()) -> None:
        self.secret = secrets.token_hex(16)
        self.received: list[Received] = []
        self._behave = behave
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.server_bind()
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def accepted(self) -> list[Received]:
        """What was answered with 2xx."""
        with self._lock:
            return [r for r in self.received if r.answer.status < 300]

    def __enter__(self) -> Receiver:
        self._server.server_activate()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        at = time.time()
        body = request.rfile.read(min(int(request.headers.get("Content-Length", "0")), MAX_BODY_BYTES))
        with self._lock:
            answer = self._behave(len(self.received))
            delivery = request.headers.get("X-Tocsin-Delivery", "")
            self.received.append(Received(at, delivery, self._is_signed(request, body, at), _decoded(body), answer))
        time.sleep(answer.delay_s)
        try:
            request.send_response(answer.status)
            if answer.retry_after_s is not None:
                request.send_header("Retry-After", f"{answer.retry_after_s:g}")
            request.send_header("Content-Length", "0")
            request.end_headers()
        except OSError:  # the sender did not wait
            request.close_connection = True

    def _is_signed(self, request: BaseHTTPRequestHandler, body: bytes, now: float) -> bool:
        """As docs/playbooks.md tells receivers to do it; written again here, from those words."""
        given = re.fullmatch(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})", request.headers.get("X-Tocsin-Signature", ""))
        if given is None or abs(now - int(given[1])) > REPLAY_WINDOW_S:
            return False
        digest = hmac.new(self.secret.encode(), given[1].encode() + b"." + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(digest, given[2])


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
