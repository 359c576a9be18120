"""The store behind a proxy that fails as networks and busy clusters do: each document once, nothing given up."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from ecs_mappings.event import Ecs, Event, EventMeta, Process, encode
from elastic.store import ElasticStore
from store import Options, Outcome, Query
from tocsin.errors import RetryLater

pytestmark = pytest.mark.elastic

Answer = tuple[int, bytes] | None
"""Status and body; None closes the connection without a word."""
Forward = Callable[[bytes], tuple[int, bytes]]
Fault = Callable[[bytes, Forward], Answer]
"""Answers one bulk request, with or without asking the node."""


def lose_answer(body: bytes, forward: Forward) -> Answer:
    """The node takes the request, and nobody hears of it."""
    forward(body)
    return None


def put_off_half(body: bytes, forward: Forward) -> Answer:
    """The node is busy for every second document."""
    return _some(body, forward, 429)


def lack_template(body: bytes, forward: Forward) -> Answer:
    return _some(body, forward, 404)


def lack_shards(body: bytes, forward: Forward) -> Answer:
    return _some(body, forward, 400, "validation_exception")


def _some(body: bytes, forward: Forward, status: int, error: str = "fault") -> Answer:
    lines = body.splitlines(keepends=True)
    pairs = [lines[n] + lines[n + 1] for n in range(0, len(lines), 2)]
    status_code, answer = forward(b"".join(pairs[::2]))
    taken = iter(json.loads(answer)["items"])
    put_off = {"create": {"status": status, "error": {"type": error, "reason": "not now"}}}
    items = [next(taken) if n % 2 == 0 else put_off for n in range(len(pairs))]
    return status_code, json.dumps({"errors": True, "items": items}).encode()


def always(status: int) -> Fault:
    return lambda body, forward: (status, b'{"error":{"type":"fault","reason":"told to"},"status":%d}' % status)


def refuse_over(limit: int) -> Fault:
    """A proxy with a limit on the length of requests, as nginx has one."""
    return lambda body, forward: (413, b"<html>Request Entity Too Large</html>") if len(body) > limit else forward(body)


class FaultyProxy:
    """Passes all on to the node; bulk requests through `faults`, one each, and when they are used up `then`."""

    def __init__(self, node_url: str) -> None:
        self.faults: list[Fault] = []
        self.then: Fault = lambda body, forward: forward(body)
        self.bulks: list[int] = []
        """Number of documents of each bulk request."""
        self.paths: list[str] = []
        self._node = urlsplit(node_url)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                answer = proxy._answer(self.command, self.path, dict(self.headers), body)
                if answer is None:
                    self.close_connection = True
                    return
                status, content = answer
                self.send_response(status)
                if content.startswith(b"<"):
                    self.send_header("content-type", "text/html")
                else:
                    self.send_header("x-elastic-product", "Elasticsearch")
                    self.send_header("content-type", "application/vnd.elasticsearch+json;compatible-with=8")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        def forward(content: bytes) -> tuple[int, bytes]:
            node = http.client.HTTPConnection(self._node.hostname or "", self._node.port, timeout=30)
            try:
                passed = {k: v for k, v in headers.items() if k.lower() in ("content-type", "accept")}
                node.request(method, path, content, passed)
                response = node.getresponse()
                return response.status, response.read()
            finally:
                node.close()

        self.paths.append(f"{method} {path}")
        if urlsplit(path).path != "/_bulk":
            return forward(body)
        self.bulks.append(body.count(b"\n") // 2)
        fault = self.faults.pop(0) if self.faults else self.then
        return fault(body, forward)


@pytest.fixture
def proxy(elastic_url: str) -> Iterator[FaultyProxy]:
    made = FaultyProxy(elastic_url)
    yield made
    made.close()


@pytest.fixture
def kept(proxy: FaultyProxy, options: Options) -> Iterator[ElasticStore]:
    """A store behind the proxy, in a namespace of its own."""
    store = ElasticStore(proxy.url, options)
    yield store
    store.close()


def document(event_id: str, padding: int = 0) -> bytes:
    meta = EventMeta(id=event_id, category=["process"], type=["start"], action="exec", dataset="tocsin.process")
    return encode(
        Event(timestamp=datetime.now(UTC), ecs=Ecs(), event=meta, process=Process(command_line="x" * padding))
    )


def batch(count: int) -> list[bytes]:
    return [document(f"e-{number}") for number in range(count)]


def outcomes(store: ElasticStore, documents: list[bytes]) -> set[Outcome]:
    return {answer.outcome for answer in store.write(documents)}


def found(store: ElasticStore) -> list[str]:
    store.refresh()
    return sorted(event.event.id for event in store.search(Query(limit=10_000)).events)


def rollover(store: ElasticStore, options: Options) -> None:
    answer = store.client.indices.rollover(alias=f"logs-tocsin.process-{options.namespace}")
    assert answer["rolled_over"]


def test_lost_answer_does_not_duplicate(kept: ElasticStore, proxy: FaultyProxy) -> None:
    proxy.faults = [lose_answer]
    with pytest.raises(RetryLater, match="cannot be reached"):
        kept.write(batch(20))
    assert outcomes(kept, batch(20)) == {Outcome.EXISTS}
    assert len(found(kept)) == 20


def test_lost_answer_and_a_rollover_do_not_duplicate(kept: ElasticStore, proxy: FaultyProxy, options: Options) -> None:
    """A repeated _id is known only within one backing index; the store must look into the older ones itself."""
    kept.write([document("first")])
    proxy.faults = [lose_answer]
    with pytest.raises(RetryLater):
        kept.write(batch(20))
    rollover(kept, options)
    assert outcomes(kept, batch(20)) == {Outcome.EXISTS}
    assert len(found(kept)) == 21


def test_writer_that_restarts_after_a_rollover_does_not_duplicate(
    kept: ElasticStore, proxy: FaultyProxy, options: Options
) -> None:
    kept.write(batch(20))
    rollover(kept, options)
    restarted = ElasticStore(proxy.url, options)
    taken = restarted.write(batch(30))
    restarted.close()
    assert [a.outcome for a in taken] == [Outcome.EXISTS] * 20 + [Outcome.CREATED] * 10
    assert len(found(kept)) == 30


def test_only_what_was_put_off_is_sent_again(kept: ElasticStore, proxy: FaultyProxy) -> None:
    proxy.faults = [put_off_half, put_off_half]
    assert outcomes(kept, batch(20)) == {Outcome.CREATED}
    assert proxy.bulks == [20, 10, 5]
    assert len(found(kept)) == 20


def test_cluster_that_stays_busy_is_retry_later_and_keeps_what_it_took(kept: ElasticStore, proxy: FaultyProxy) -> None:
    proxy.faults = [put_off_half] * 4
    with pytest.raises(RetryLater, match="put off 1 documents: 429 fault: not now"):
        kept.write(batch(16))
    assert [a.outcome for a in kept.write(batch(16))].count(Outcome.CREATED) == 1
    assert len(found(kept)) == 16


def test_a_cluster_without_room_for_another_shard_gives_up_no_document(kept: ElasticStore, proxy: FaultyProxy) -> None:
    proxy.faults = [lack_shards]
    assert outcomes(kept, batch(4)) == {Outcome.CREATED}
    assert len(found(kept)) == 4


def test_missing_template_is_put_again(kept: ElasticStore, proxy: FaultyProxy) -> None:
    proxy.faults = [lack_template]
    assert outcomes(kept, batch(2)) == {Outcome.CREATED}
    assert [p for p in proxy.paths if p.startswith("POST /_index_template/_simulate")] != []
    assert sum(path.startswith("GET /_index_template/logs-tocsin") for path in proxy.paths) == 2


def stranger(body: bytes, forward: Forward) -> Answer:
    """Something else answers at this address."""
    return 200, b"<html>Log in</html>"


def test_answer_of_a_stranger_loses_nothing(kept: ElasticStore, proxy: FaultyProxy) -> None:
    proxy.faults = [stranger]
    with pytest.raises(RetryLater):
        kept.write(batch(3))
    assert outcomes(kept, batch(3)) == {Outcome.CREATED}


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "400"), (429, "429"), (503, "503"), (500, "500"), (401, "credentials"), (403, "rights")],
)
def test_no_answer_of_the_cluster_loses_a_document(
    kept: ElasticStore, proxy: FaultyProxy, status: int, reason: str
) -> None:
    proxy.faults = [always(status)]
    with pytest.raises(RetryLater, match=reason):
        kept.write(batch(3))
    assert outcomes(kept, batch(3)) == {Outcome.CREATED}


def test_request_that_is_too_long_is_halved(kept: ElasticStore, proxy: FaultyProxy) -> None:
    proxy.then = refuse_over(20_000)
    sizes = [100, 9_000, 9_000, 30_000, 9_000, 100]
    answers = kept.write([document(f"e-{n}", padding) for n, padding in enumerate(sizes)])
    expected = [Outcome.CREATED] * 6
    expected[3] = Outcome.REJECTED
    assert [a.outcome for a in answers] == expected
    assert "length" in answers[3].reason
    assert len(found(kept)) == 5
