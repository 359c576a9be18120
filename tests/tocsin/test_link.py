"""The link's promises, over real sockets: what is taken, what is refused, and what a kept connection survives."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tocsin.errors import Rejected, RetryLater, TocsinError
from tocsin.link import MAX_BODY_BYTES, OFFSET_HEADER, Client, Reply, Request, Routes, serving

T = TypeVar("T")


async def echo(request: Request) -> Reply:
    return Reply.json({"bytes": len(request.body), "query": request.query, "path": request.path})


async def offset(request: Request) -> Reply:
    return Reply.json({"offset": request.offset()})


async def busy(request: Request) -> Reply:
    raise RetryLater("the spool is full", after_s=1.5)


async def refuse(request: Request) -> Reply:
    raise Rejected("not an event")


async def slow(request: Request) -> Reply:
    await asyncio.sleep(0.5)
    return Reply()


ROUTES: Routes = {
    ("POST", "/events"): echo,
    ("GET", "/runs/{id}"): echo,
    ("POST", "/offset"): offset,
    ("POST", "/busy"): busy,
    ("POST", "/refuse"): refuse,
    ("POST", "/slow"): slow,
}


def with_server(path: Path, work: Callable[[], T], routes: Routes = ROUTES) -> T:
    """Runs `work` on a thread while a server serves."""

    async def both() -> T:
        async with serving(path, routes):
            return await asyncio.to_thread(work)

    return asyncio.run(both())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.sock"


@pytest.fixture
def client(path: Path) -> Iterator[Client]:
    made = Client(path, timeout_s=5)
    yield made
    made.close()


def ask(client: Client, method: str, *args: str | bytes) -> Reply:
    """One call on this thread, whose connection is closed again."""
    try:
        reply: Reply = getattr(client, method)(*args)
        return reply
    finally:
        client.close()


def test_body_query_and_path_arrive(path: Path, client: Client) -> None:
    posted, got = with_server(path, lambda: (ask(client, "post", "/events?a=1", b"x\n"), ask(client, "get", "/runs/7")))
    assert posted.decoded() == {"bytes": 2, "query": {"a": "1"}, "path": {}}
    assert got.decoded()["path"] == {"id": "7"}


def test_the_offset_header_must_be_a_number(path: Path, client: Client) -> None:
    def work() -> int:
        good: int = client.post("/offset", b"", {OFFSET_HEADER: "12"}).decoded()["offset"]
        with pytest.raises(Rejected, match="Tocsin-Offset"):
            client.post("/offset", b"", {OFFSET_HEADER: "-1"})
        with pytest.raises(Rejected, match="Tocsin-Offset"):
            client.post("/offset")
        client.close()
        return good

    assert with_server(path, work) == 12


def test_busy_carries_the_advice_and_refusal_the_reason(path: Path, client: Client) -> None:
    with pytest.raises(RetryLater, match="the spool is full") as caught:
        with_server(path, lambda: ask(client, "post", "/busy"))
    assert caught.value.after_s == 1.5
    with pytest.raises(Rejected, match="not an event"):
        with_server(path, lambda: ask(client, "post", "/refuse"))


def test_an_unknown_route_is_rejected(path: Path, client: Client) -> None:
    with pytest.raises(Rejected, match="404"):
        with_server(path, lambda: ask(client, "post", "/nope"))


def test_the_largest_body_passes_and_a_byte_more_is_rejected(path: Path, client: Client) -> None:
    def work() -> int:
        taken: int = client.post("/events", b"x" * MAX_BODY_BYTES).decoded()["bytes"]
        with pytest.raises(Rejected, match="over the limit"):
            client.post("/events", b"x" * (MAX_BODY_BYTES + 1))
        again: int = client.post("/events", b"x").decoded()["bytes"]  # the connection is still in step
        client.close()
        return taken + again

    assert with_server(path, work) == MAX_BODY_BYTES + 1


def test_the_server_bounds_bodies_itself(path: Path) -> None:
    def work() -> bytes:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(path))
            raw.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
            raw.sendall(b"x" * (MAX_BODY_BYTES + 1))
            return raw.recv(100)

    assert with_server(path, work).startswith(b"HTTP/1.1 413")


def test_many_threads_share_one_client(path: Path, client: Client) -> None:
    def one(i: int) -> bool:
        return all(client.post("/events", b"y" * (i + n)).decoded()["bytes"] == i + n for n in range(50))

    def work() -> list[bool]:
        barrier = threading.Barrier(8)

        def closing(i: int) -> bool:
            try:
                return one(i)
            finally:
                barrier.wait()  # each of the eight threads has taken one task, so each closes its own connection
                client.close()

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(closing, range(8)))

    assert with_server(path, work) == [True] * 8


def test_a_kept_connection_survives_a_restart_of_the_server(path: Path, client: Client) -> None:
    async def main() -> list[int]:
        with ThreadPoolExecutor(1) as pool:
            loop = asyncio.get_running_loop()
            seen: list[int] = []
            for _ in range(3):
                async with serving(path, ROUTES):
                    reply = await loop.run_in_executor(pool, client.post, "/events", b"abc")
                    seen.append(reply.decoded()["bytes"])
            await loop.run_in_executor(pool, client.close)
            return seen

    assert asyncio.run(main()) == [3, 3, 3]


def test_nobody_there_and_too_slow_both_mean_later(path: Path) -> None:
    with pytest.raises(RetryLater, match=r"x\.sock"):
        Client(path).get("/runs/1")
    hurried = Client(path, timeout_s=0.05)
    with pytest.raises(RetryLater):
        with_server(path, lambda: ask(hurried, "post", "/slow"))


def test_a_stale_socket_is_taken_over_and_a_live_one_is_not(path: Path, client: Client) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    assert path.exists()

    async def second() -> None:
        async with serving(path, ROUTES):
            raise AssertionError("two servers on one socket")

    def work() -> int:
        with pytest.raises(TocsinError, match="in use") as caught:
            asyncio.run(second())
        assert caught.value.exit_code == 2
        return ask(client, "post", "/events", b"z").status

    assert with_server(path, work) == 200
    assert not path.exists()


def test_only_owner_and_group_reach_the_socket(path: Path) -> None:
    assert with_server(path, lambda: path.stat().st_mode & 0o777) == 0o660


def test_running_requests_finish_when_the_server_stops(path: Path, client: Client) -> None:
    async def main() -> int:
        async with serving(path, ROUTES):
            pending = asyncio.create_task(asyncio.to_thread(ask, client, "post", "/slow"))
            await asyncio.sleep(0.1)
        return (await pending).status

    assert asyncio.run(main()) == 200
