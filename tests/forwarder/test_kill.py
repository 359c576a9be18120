"""kill -9 of a real forwarder under load: what it acknowledged reaches the sinks after the restart."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tocsin.errors import RetryLater
from tocsin.link import Client, Reply, Request

PROGRAM = """
import asyncio, sys
from pathlib import Path
from forwarder.forwarder import Forwarder
from forwarder.limits import Limits
from forwarder.sinks.correlator import CorrelatorSink
from forwarder.sinks.playbooks import PlaybooksSink
from tocsin.link import Client, serving

async def main(root):
    sinks = {"correlator": CorrelatorSink(Client(root / "correlator.sock")),
             "playbooks": PlaybooksSink(Client(root / "playbooks.sock"))}
    forwarder = Forwarder(root / "spool", sinks, Limits(segment_bytes=1 << 18, max_wait_s=0.05))
    forwarder.start()
    async with serving(root / "forwarder.sock", forwarder.routes()):
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


class Receiver:
    """Correlator and playbooks in one: keeps every record by its offset."""

    def __init__(self) -> None:
        self.records: dict[str, dict[int, bytes]] = {"/events": {}, "/alerts": {}}

    def routes(self) -> Any:
        def keeping(path: str) -> Any:
            async def keep(request: Request) -> Reply:
                kept = self.records[path]
                for i, line in enumerate(request.body.splitlines()):
                    offset = request.offset() + i
                    assert kept.setdefault(offset, line) == line, "an offset was given twice"
                return Reply()

            return keep

        return {("POST", path): keeping(path) for path in self.records}


class Producer(threading.Thread):
    """Posts batches as fast as they are taken, each again until it is; remembers what was acknowledged."""

    def __init__(self, path: Path, topic: str, batch: int) -> None:
        super().__init__()
        self.acknowledged: dict[int, bytes] = {}
        self.stopping = threading.Event()
        self._client = Client(path, timeout_s=2)
        self._topic = topic
        self._batch = batch

    def run(self) -> None:
        with contextlib.closing(self._client):
            number = 0
            while not self.stopping.is_set():
                self._post([b"%s-%d-" % (self._topic.encode(), number + i) + b"x" * 200 for i in range(self._batch)])
                number += self._batch
                time.sleep(0.001)

    def _post(self, lines: Sequence[bytes]) -> None:
        while not self.stopping.is_set():
            with contextlib.suppress(RetryLater):
                first = self._client.post(f"/{self._topic}", b"\n".join([*lines, b""])).decoded()["offset"]
                self.acknowledged |= {first + i: line for i, line in enumerate(lines)}
                return
            time.sleep(0.005)


def start(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(root)], cwd=Path(__file__).parents[2])


def answers(path: Path) -> bool:
    with contextlib.closing(Client(path, timeout_s=2)) as client, contextlib.suppress(RetryLater):
        client.get("/status")
        return True
    return False


def until(condition: Any, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [4])
def test_nothing_acknowledged_is_lost(serve: Any, tmp_path: Path, kills: int) -> None:
    receiver = Receiver()
    path = tmp_path / "forwarder.sock"
    process = start(tmp_path)
    with serve("correlator", receiver.routes()), serve("playbooks", receiver.routes()):
        producers = [Producer(path, "events", 100), Producer(path, "alerts", 1)]
        try:
            until(lambda: answers(path))
            for producer in producers:
                producer.start()
            for n in range(kills):
                time.sleep(0.3 + 0.07 * n)
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                process = start(tmp_path)
                until(lambda: answers(path))
            time.sleep(0.2)
        finally:
            for producer in producers:
                producer.stopping.set()
                producer.join()
        expected = {f"/{p._topic}": p.acknowledged for p in producers}
        assert all(len(records) > 50 for records in expected.values())
        for topic, records in expected.items():
            until(lambda topic=topic, records=records: records.keys() <= receiver.records[topic].keys())
            assert {offset: receiver.records[topic][offset] for offset in records} == records
            assert sorted(receiver.records[topic]) == list(range(len(receiver.records[topic])))
        process.kill()
        process.wait()
