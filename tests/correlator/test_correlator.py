"""The process's promises: alerts before the acknowledgement, nothing lost over crashes and a forwarder that is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from correlator import sample, sigma
from correlator.correlator import Correlator
from correlator.forwarder_link import ForwarderLink
from correlator.ruleset import LogSource, RuleSet
from ecs_mappings.event import decode, encode
from tocsin.errors import Rejected, RetryLater
from tocsin.link import OFFSET_HEADER, Client, Reply, Request, Routes, serving

RULES = sigma.load([sigma.SHIPPED])
EXEC = LogSource("tocsin.process", "exec")
Hook = Callable[[], Awaitable[None]] | None


class FakeForwarder:
    """A log, a cursor and what was taken; may be away, or refuse single alerts."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.log: list[bytes] = []
        self.cursor = first
        self.taken: dict[str, bytes] = {}
        self.posts = 0
        self.away = False
        self.refuses: set[str] = set()
        self.rewinds: list[tuple[int | None, float | None]] = []

    @property
    def end(self) -> int:
        return self.first + len(self.log)

    def post_alerts(self, lines: bytes) -> None:
        if self.away:
            raise RetryLater("away")
        self.posts += 1
        alerts = {decode(line).event.id: line for line in lines.splitlines()}
        if self.refuses.intersection(decode(line).container.name for line in alerts.values()):
            raise Rejected("too long")
        self.taken |= alerts

    def rewind(self, *, offset: int | None = None, seconds: float | None = None) -> Mapping[str, int]:
        if self.away:
            raise RetryLater("away")
        self.rewinds.append((offset, seconds))
        self.cursor = min(self.cursor, max(self.first, offset or self.first))
        return {"offset": self.cursor, "oldest": self.first, "next": self.end}

    def deliver(self, correlator: Correlator, size: int = 3) -> None:
        """Delivers one batch; the cursor moves only when it was taken."""
        lines = self.log[self.cursor - self.first : self.cursor - self.first + size]
        correlator.take(self.cursor, lines)
        self.cursor += len(lines)


def shell(i: int, container: str = "web") -> bytes:
    content = {"at_s": i, "event.id": f"e{i}", "container": {"id": f"id-{container}", "name": container}}
    process = {"executable": "/bin/sh", "command_line": "sh", "interactive": True}
    return encode(sample.event([content, {"process": process}], i, EXEC))


def make(forwarder: FakeForwarder, path: Path, rules: RuleSet = RULES, every_s: float = 60.0) -> Correlator:
    return Correlator(rules, forwarder, path, group_span_s=600, snapshot_every_s=every_s, clock_ns=lambda: 0)


async def aligned(correlator: Correlator) -> None:
    async with asyncio.timeout(5):
        while not correlator.status()["ready"]:
            await asyncio.sleep(0.002)


def test_alerts_are_handed_on_before_a_batch_is_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        forwarder.log = [shell(0), shell(1)]
        correlator = make(forwarder, tmp_path / "state")
        with pytest.raises(RetryLater, match="still asking"):
            forwarder.deliver(correlator)
        await correlator.start()
        await aligned(correlator)
        assert forwarder.rewinds == [(None, 660.0)]
        forwarder.away = True
        with pytest.raises(RetryLater):
            forwarder.deliver(correlator)
        assert forwarder.taken == {} and correlator.status()["pending_alerts"] == 2
        with pytest.raises(RetryLater):
            forwarder.deliver(correlator)
        forwarder.away = False
        forwarder.deliver(correlator)
        assert len(forwarder.taken) == 2 and correlator.status()["pending_alerts"] == 0
        await correlator.stop()

    asyncio.run(scenario())


def test_a_restart_goes_on_from_the_snapshot_with_what_was_pending(tmp_path: Path) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        forwarder.log = [shell(i) for i in range(3)]
        first = make(forwarder, tmp_path / "state")
        await first.start()
        await aligned(first)
        forwarder.away = True
        with pytest.raises(RetryLater):
            forwarder.deliver(first)
        await first.stop()
        assert forwarder.taken == {}
        forwarder.away = False
        second = make(forwarder, tmp_path / "state")
        await second.start()
        await aligned(second)
        assert forwarder.rewinds[-1] == (3, None) and second.status()["snapshot"]["restored"] == "yes"
        forwarder.deliver(second)
        assert [decode(x).event.action for x in forwarder.taken.values()] == ["opened", "repeated"]
        await second.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 10])
def test_without_a_usable_snapshot_the_log_is_replayed(tmp_path: Path, damage: bytes) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        forwarder.log = [shell(0)]
        (tmp_path / "state").write_bytes(damage)
        correlator = make(forwarder, tmp_path / "state")
        await correlator.start()
        await aligned(correlator)
        assert forwarder.rewinds == [(None, 660.0)]
        assert "damaged" in correlator.status()["snapshot"]["restored"]
        forwarder.deliver(correlator)
        assert len(forwarder.taken) == 1
        await correlator.stop()

    asyncio.run(scenario())


def test_a_forwarder_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        forwarder.away = True
        correlator = make(forwarder, tmp_path / "state")
        await correlator.start()
        await asyncio.sleep(0.05)
        assert not correlator.status()["ready"]
        forwarder.away = False
        await aligned(correlator)
        await correlator.stop()

    asyncio.run(scenario())


def test_an_answer_that_makes_no_sense_does_not_end_the_asking(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        monkeypatch.setattr(forwarder, "rewind", lambda **_: {})
        correlator = make(forwarder, tmp_path / "state", every_s=0.01)
        await correlator.start()
        await asyncio.sleep(0.05)
        assert not correlator.status()["ready"]
        monkeypatch.undo()
        await aligned(correlator)
        await correlator.stop()

    asyncio.run(scenario())
    assert "tried again" in caplog.text


def test_one_refused_alert_does_not_hold_up_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        forwarder.refuses = {"bad"}
        forwarder.log = [shell(0, "good"), shell(1, "bad"), shell(2, "fine")]
        correlator = make(forwarder, tmp_path / "state")
        await correlator.start()
        await aligned(correlator)
        forwarder.deliver(correlator)
        assert len(forwarder.taken) == 2 and correlator.status()["refused_alerts"] == 1
        await correlator.stop()

    asyncio.run(scenario())
    assert "an alert was refused" in caplog.text


def test_a_log_that_began_anew_is_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        forwarder.log = [shell(i) for i in range(5)]
        first = make(forwarder, tmp_path / "state")
        await first.start()
        await aligned(first)
        forwarder.deliver(first, 5)
        await first.stop()
        wiped = FakeForwarder()
        wiped.log = [shell(100, "other")]
        second = make(wiped, tmp_path / "state")
        await second.start()
        await aligned(second)
        wiped.deliver(second)
        assert len(wiped.taken) == 1
        await second.stop()

    asyncio.run(scenario())


def test_a_log_that_began_anew_under_a_living_correlator_is_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        forwarder.log = [shell(i) for i in range(9)]
        correlator = make(forwarder, tmp_path / "state", every_s=0.01)
        await correlator.start()
        await aligned(correlator)
        for _ in range(3):
            forwarder.deliver(correlator)
        forwarder.log, forwarder.cursor = [shell(100, "other")], 0
        with pytest.raises(RetryLater):
            forwarder.deliver(correlator)
        await aligned(correlator)
        forwarder.deliver(correlator)
        assert {decode(line).container.name for line in forwarder.taken.values()} == {"web", "other"}
        await correlator.stop()

    asyncio.run(scenario())


def test_a_forwarder_that_forgot_how_far_it_was_is_asked_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        forwarder = FakeForwarder()
        forwarder.log = [shell(i) for i in range(9)]
        correlator = make(forwarder, tmp_path / "state", every_s=0.01)
        await correlator.start()
        await aligned(correlator)
        for _ in range(3):
            forwarder.deliver(correlator)
        taken, forwarder.cursor = dict(forwarder.taken), 0
        with pytest.raises(RetryLater):
            forwarder.deliver(correlator)
        await aligned(correlator)
        for _ in range(3):
            forwarder.deliver(correlator)
        assert forwarder.taken == taken and forwarder.cursor == 9
        await correlator.stop()

    asyncio.run(scenario())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_alert_is_lost_or_doubled_over_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Crash at any moment (state on disk of any age), forwarder away at any moment: the same alerts in the end."""
    log = [shell(i, data.draw(st.sampled_from(["a", "b"]), label="container")) for i in range(12)]
    path = tmp_path_factory.mktemp("state") / "state"

    async def uninterrupted() -> set[str]:
        forwarder = FakeForwarder()
        forwarder.log = log
        correlator = make(forwarder, path.with_name("other"))
        await correlator.start()
        await aligned(correlator)
        while forwarder.cursor < forwarder.end:
            forwarder.deliver(correlator)
        return set(forwarder.taken)

    async def interrupted() -> set[str]:
        forwarder = FakeForwarder()
        forwarder.log = log
        correlator = make(forwarder, path)
        await correlator.start()
        await aligned(correlator)
        for _ in range(40):
            match data.draw(st.sampled_from(["deliver", "deliver", "away", "keep", "crash"]), label="what"):
                case "away":
                    forwarder.away = not forwarder.away
                case "keep":
                    correlator._save()
                case "crash":
                    assert correlator._keeper is not None
                    correlator._keeper.cancel()
                    forwarder.away = False
                    correlator = make(forwarder, path)
                    await correlator.start()
                    await aligned(correlator)
                case "deliver":
                    try:
                        forwarder.deliver(correlator, data.draw(st.integers(1, 5), label="size"))
                    except RetryLater:
                        assert forwarder.away
        forwarder.away = False
        while forwarder.cursor < forwarder.end:
            forwarder.deliver(correlator)
        correlator._hand_on()
        await correlator.stop()
        return set(forwarder.taken)

    assert asyncio.run(interrupted()) == asyncio.run(uninterrupted())


class Loop:
    """Serves routes on a socket from a thread with a loop of its own, as a process would."""

    def __init__(self, socket: Path, routes: Routes, start: Hook = None, stop: Hook = None) -> None:
        self._ready, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(socket, routes, start, stop)))

    def __enter__(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _run(self, socket: Path, routes: Routes, start: Hook, stop: Hook) -> None:
        async with serving(socket, routes):
            if start:
                await start()
            self._ready.set()
            while not self._done.is_set():
                await asyncio.sleep(0.005)
            if stop:
                await stop()


def test_over_real_sockets(tmp_path: Path) -> None:
    """The forwarder answers a rewind only when the batch under way has ended: it must be turned away meanwhile."""
    fake, asked, turned_away = FakeForwarder(), threading.Event(), threading.Event()

    async def alerts(request: Request) -> Reply:
        fake.post_alerts(request.body)
        return Reply()

    async def rewind(request: Request) -> Reply:
        assert (request.query["topic"], request.query["sink"]) == ("events", "correlator")
        asked.set()
        await asyncio.to_thread(turned_away.wait)
        return Reply.json(fake.rewind(seconds=float(request.query["seconds"])))

    link = ForwarderLink(Client(tmp_path / "f.sock"))
    correlator = Correlator(RULES, link, tmp_path / "state")

    async def stop() -> None:
        await correlator.stop()
        link.close()

    client = Client(tmp_path / "c.sock")
    with (
        Loop(tmp_path / "f.sock", {("POST", "/alerts"): alerts, ("POST", "/rewind"): rewind}),
        Loop(tmp_path / "c.sock", correlator.routes(), correlator.start, stop),
    ):
        assert asked.wait(10)
        with pytest.raises(RetryLater):
            client.post("/events", shell(0), {OFFSET_HEADER: "0"})
        turned_away.set()
        while not client.get("/status").decoded()["ready"]:
            time.sleep(0.01)
        reply = client.post("/events", shell(0) + b"\n" + shell(1) + b"\n", {OFFSET_HEADER: "0"})
        assert reply.decoded() == {"taken": 2, "next_offset": 2}
        assert len(fake.taken) == 2
        with pytest.raises(Rejected, match=OFFSET_HEADER):
            client.post("/events", b"", {})
        status = client.get("/status").decoded()
        assert status["rules"]["interactive-shell-in-container"] == {"matches": 2, "opened": 1, "repeated": 1}
        client.close()
