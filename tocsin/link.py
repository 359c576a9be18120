"""The one way our processes speak: HTTP on a Unix socket, NDJSON bodies. Owns transport, not meaning.

2xx means durably taken, 429 and 5xx mean send again, any other 4xx means never. The client is http.client,
synchronous and several times quicker a round trip than an asynchronous one; the server is uvicorn with httptools.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tocsin.errors import Rejected, RetryLater, UsageError

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Longest request body a server takes; producers send batches far below it."""

OFFSET_HEADER = "Tocsin-Offset"
"""Offset, within its topic, of the first record of a delivered batch."""


@dataclass(frozen=True)
class Request:
    """What a handler gets. Header names are lower case; `path` holds the route's {variables}."""

    body: bytes
    query: Mapping[str, str]
    headers: Mapping[str, str]
    path: Mapping[str, str]

    def offset(self) -> int:
        """The Tocsin-Offset header as a number; Rejected when it is missing or no number."""
        text = self.headers.get(OFFSET_HEADER.lower(), "")
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise Rejected(f"the header {OFFSET_HEADER} must be a record's offset, not {text[:40]!r}")
        return int(text)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Reply:
        return cls(status, msgspec.json.encode(value))

    def decoded(self) -> Any:
        return msgspec.json.decode(self.body)


Handler = Callable[[Request], Awaitable[Reply]]
Routes = Mapping[tuple[str, str], Handler]
"""(method, path template) -> handler, as in {("POST", "/events"): inbox.take}.

A handler may raise RetryLater (answered 503, with Retry-After) or Rejected (answered 400).
"""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Speaks to one socket over one kept connection per thread. Safe to share between threads."""

    def __init__(self, path: Path, timeout_s: float = 10.0) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._local = threading.local()

    def get(self, path: str) -> Reply:
        return self._call("GET", path, b"", {})

    def post(self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """The reply, always 2xx. Raises RetryLater when nobody listens, on a timeout, 429 and 5xx; else Rejected.

        After RetryLater the other side may or may not have taken the body: send the same again, ids absorb it.
        """
        if len(body) > MAX_BODY_BYTES:  # the server would hang up halfway, which looks like a server that went away
            raise Rejected(f"a body of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}")
        return self._call("POST", path, body, {"Content-Type": "application/x-ndjson", **(headers or {})})

    def close(self) -> None:
        """Closes this thread's connection."""
        connection: _UnixConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _call(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        fresh = getattr(self._local, "connection", None) is None
        try:
            return self._once(method, path, body, headers)
        except (ConnectionError, http.client.HTTPException, OSError) as e:
            self.close()
            # A kept connection may have been closed by a restart of the other side: try once on a new one.
            if fresh or isinstance(e, TimeoutError):
                raise RetryLater(self._why(e)) from e
        try:
            return self._once(method, path, body, headers)
        except (ConnectionError, http.client.HTTPException, OSError) as e:
            self.close()
            raise RetryLater(self._why(e)) from e

    def _why(self, error: Exception) -> str:
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return f"nobody listens on {self.path}"
        if isinstance(error, PermissionError):
            return f"{self.path}: no permission; run as root"
        if isinstance(error, TimeoutError):
            return f"{self.path}: no answer within {self._timeout_s:g} s"
        return f"{self.path}: {error or type(error).__name__}"

    def _once(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        connection: _UnixConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _UnixConnection(self.path, self._timeout_s)
        connection.request(method, path, body=body or None, headers=dict(headers))
        response = connection.getresponse()
        reply = Reply(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
        if reply.status < 300:
            return reply
        text = f"{self.path.name}: {_reason(reply) or f'answered {reply.status} to {path}'}"
        if reply.status == 429 or reply.status >= 500:
            after = reply.headers.get("retry-after", "")
            raise RetryLater(text, float(after) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", after) else None)
        raise Rejected(text)


def _reason(reply: Reply) -> str:
    """What the other side gives as its error; empty when it gives none that we understand."""
    try:
        return msgspec.json.decode(reply.body, type=dict[str, str]).get("error", "")[:1000]
    except msgspec.MsgspecError:
        return ""


@contextlib.asynccontextmanager
async def serving(path: Path, routes: Routes) -> AsyncIterator[None]:
    """Serves `routes` on the socket `path` (mode 0660) inside the running loop until the block ends.

    A stale socket file is replaced; one that somebody answers on is a UsageError. At the end running requests finish.
    """
    import uvicorn

    _take_over(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    os.chmod(path, 0o660)
    listener.listen(128)
    config = uvicorn.Config(
        _app(routes), http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))  # serve() would take the process's signal handlers
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.001)
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def in_use(path: Path) -> bool:
    """Whether somebody serves this socket now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _take_over(path: Path) -> None:
    """Removes a socket file that nobody serves any more."""
    if in_use(path):
        raise UsageError(f"{path} is in use: another Tocsin runs here; stop it, or set another run_dir")
    path.unlink(missing_ok=True)


def _app(routes: Routes) -> Any:
    """The ASGI application; FastAPI, as in the console."""
    import fastapi

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for (method, template), handler in routes.items():
        app.add_api_route(template, _endpoint(handler), methods=[method], response_model=None)
    return app


def _endpoint(handler: Handler) -> Callable[..., Awaitable[Any]]:
    import fastapi

    async def endpoint(request: fastapi.Request) -> fastapi.Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return fastapi.Response(f'{{"error": "a body may have {MAX_BODY_BYTES} bytes"}}', 413)
        call = Request(bytes(body), dict(request.query_params), dict(request.headers), dict(request.path_params))
        try:
            reply = await handler(call)
        except RetryLater as e:
            headers = {} if e.after_s is None else {"Retry-After": f"{e.after_s:g}"}
            return fastapi.Response(msgspec.json.encode({"error": str(e)}), 503, headers, "application/json")
        except Rejected as e:
            return fastapi.Response(msgspec.json.encode({"error": str(e)}), 400, {}, "application/json")
        return fastapi.Response(reply.body, reply.status, dict(reply.headers), "application/json")

    # The annotation must be the real class, not text: FastAPI resolves it in this module's globals.
    endpoint.__annotations__ = {"request": fastapi.Request, "return": fastapi.Response}
    return endpoint
