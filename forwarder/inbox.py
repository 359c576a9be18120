"""What producers and operators can ask over the socket. Owns the shape of requests; a line is opaque."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ecs_mappings.event import MAX_DOCUMENT_BYTES
from forwarder.dead_letters import Letter
from forwarder.sinks import ALERTS, EVENTS
from tocsin.errors import Rejected
from tocsin.link import Handler, Reply, Request, Routes

_MAX_NUMBER = 10**18


class Core(Protocol):
    """The forwarder, as the handlers need it."""

    def take(self, topic: str, lines: Sequence[bytes], refused: Sequence[Letter]) -> int: ...
    def rewind(
        self, topic: str, sink: str, *, offset: int | None = None, seconds: float | None = None
    ) -> dict[str, int]: ...
    def resend(self, sink: str) -> int: ...
    def status(self) -> dict[str, Any]: ...


def routes(core: Core) -> Routes:
    return {
        ("POST", "/events"): _taking(core, EVENTS),
        ("POST", "/alerts"): _taking(core, ALERTS),
        ("POST", "/rewind"): _rewinding(core),
        ("POST", "/deadletters/resend"): _resending(core),
        ("GET", "/status"): _showing(core.status),
    }


def split(topic: str, body: bytes) -> tuple[list[bytes], list[Letter]]:
    """The records of a body, and what can be none: a line over the contract's size."""
    lines = body.split(b"\n")
    if all(0 < len(line) <= MAX_DOCUMENT_BYTES for line in lines[:-1]) and not lines[-1]:
        del lines[-1]  # the usual case: every line ended
        return lines, []
    reason = f"longer than {MAX_DOCUMENT_BYTES} bytes"
    refused = [Letter.of(topic, None, reason, line) for line in lines if len(line) > MAX_DOCUMENT_BYTES]
    return [line for line in lines if 0 < len(line) <= MAX_DOCUMENT_BYTES], refused


def _taking(core: Core, topic: str) -> Handler:
    async def take(request: Request) -> Reply:
        """200 once the records are in the page cache. A first part may be taken before a 503; ids absorb it."""
        lines, refused = split(topic, request.body)
        # Inline: an append takes less time than the way to another thread and back.
        offset = core.take(topic, lines, refused)
        return Reply.json({"taken": len(lines), "offset": offset, "refused": len(refused)})

    return take


def _rewinding(core: Core) -> Handler:
    async def rewind(request: Request) -> Reply:
        query = request.query
        offset, seconds = query.get("offset"), query.get("seconds")
        if (offset is None) == (seconds is None):
            raise Rejected("say how far: either offset=N or seconds=S")
        reply = await asyncio.to_thread(
            core.rewind,
            query.get("topic", EVENTS),
            query.get("sink", ""),
            offset=None if offset is None else int(_number("offset", offset, int)),
            seconds=None if seconds is None else _number("seconds", seconds, float),
        )
        return Reply.json(reply)

    return rewind


def _resending(core: Core) -> Handler:
    async def resend(request: Request) -> Reply:
        return Reply.json({"resent": await asyncio.to_thread(core.resend, request.query.get("sink", ""))})

    return resend


def _showing(status: Callable[[], dict[str, Any]]) -> Handler:
    async def show(request: Request) -> Reply:
        return Reply.json(status())

    return show


def _number(name: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not 0 <= value <= _MAX_NUMBER:
        raise Rejected(f"{name} must be a number from 0 on, not {text[:40]!r}")
    return value
