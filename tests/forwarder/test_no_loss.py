"""The law of the forwarder: whatever happens, an acknowledged record reaches every sink, in order, as it was."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forwarder.forwarder import Forwarder
from forwarder.limits import Limits
from forwarder.sinks.memory import MemorySink
from tocsin.errors import Rejected, RetryLater

LIMITS = Limits(
    spool_bytes=1 << 22, segment_bytes=600, batch_records=7, sync_every_s=0.001, cursors_every_s=0.003,
    max_wait_s=0.002, retain_s=3600,
)  # fmt: skip


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


class Moody:
    """Fails now and then, in each of the ways a receiver can, also after it has taken the batch."""

    def __init__(self, sink: MemorySink) -> None:
        self.topics = sink.topics
        self.sink = sink
        self.moods: list[str] = []

    def deliver(self, topic: str, offset: int, lines: Sequence[bytes]) -> object:
        mood = self.moods.pop() if self.moods else "well"
        if mood == "later":
            raise RetryLater("later", 0.001)
        if mood == "broken":
            raise ValueError("broken")
        if mood == "half":
            self.sink.deliver(topic, offset, lines[: len(lines) // 2])
            raise RetryLater("timeout")
        if mood == "whole" and len(lines) > 1:
            raise Rejected("too many at once")
        outcomes = self.sink.deliver(topic, offset, lines)
        if mood == "deaf":
            raise RetryLater("the answer was lost")
        return outcomes

    def close(self) -> None:
        pass


class NoLoss(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.generation = 0
        self.boot = "boot-0"
        self.acknowledged: dict[int, bytes] = {}
        """What must arrive."""
        self.perhaps: dict[int, bytes] = {}
        """Was acknowledged, but a power cut may have taken it."""
        self.number = 0
        self.sinks = {name: MemorySink(("events",)) for name in ("a", "b")}
        self.moody = {name: Moody(sink) for name, sink in self.sinks.items()}
        self._open()

    @property
    def directory(self) -> Path:
        return self.root / str(self.generation)

    def _open(self) -> None:
        self.forwarder = Forwarder(self.directory, dict(self.moody), LIMITS, self.boot)  # type: ignore[arg-type]
        self.forwarder.start()

    @rule(count=st.integers(1, 12))
    def append(self, count: int) -> None:
        lines = [b"%d" % n for n in range(self.number, self.number + count)]
        self.number += count
        first = self.forwarder.take("events", lines)
        for i, line in enumerate(lines):
            assert first + i not in self.acknowledged and first + i not in self.perhaps
            self.acknowledged[first + i] = line

    @rule(sink=st.sampled_from("ab"), moods=st.lists(st.sampled_from(["later", "broken", "half", "whole", "deaf"])))
    def upset(self, sink: str, moods: list[str]) -> None:
        self.moody[sink].moods.extend(moods)

    @precondition(lambda self: self.number > 0)
    @rule(sink=st.sampled_from("ab"), part=st.floats(0, 1, exclude_max=True))
    def rewind(self, sink: str, part: float) -> None:
        if not self.acknowledged:
            return  # whether a power cut spared any is a matter of timing, which hypothesis must not see
        offset = sorted(self.acknowledged)[int(part * len(self.acknowledged))]
        before = len(self.sinks[sink].taken("events"))
        reached = self.forwarder.rewind("events", sink, offset=offset)["offset"]
        assert reached <= offset
        until(lambda: offset in dict(self.sinks[sink].taken("events")[before:]) or reached < offset)

    @rule(timeout_s=st.sampled_from([0.0, 1.0]))
    def restart(self, timeout_s: float) -> None:
        self.forwarder.stop(timeout_s)
        self._open()

    @rule(junk=st.binary(max_size=80))
    def kill(self, junk: bytes) -> None:
        """The files as they are at this moment, and perhaps the first part of a write that was under way."""
        self._copy()
        with self._last_segment().open("ab") as file:
            file.write(junk)
        self._open()

    @rule(cut=st.integers(0, 200))
    def power_cut(self, cut: int) -> None:
        """As `kill`, and the last bytes of the newest file are gone."""
        self._copy()
        path = self._last_segment()
        os.truncate(path, max(0, path.stat().st_size - cut))
        first = int(path.stem)
        self.perhaps |= {n: line for n, line in self.acknowledged.items() if n >= first}
        self.acknowledged = {n: line for n, line in self.acknowledged.items() if n < first}
        self.boot += "+"
        self._open()

    def _copy(self) -> None:
        """A copy of the directory is what a crash leaves; the copied forwarder is stopped behind its back."""
        old, self.generation = self.directory, self.generation + 1
        # No cursor file is copied half: it is replaced as a whole. A segment is, and that is the point.
        names = shutil.ignore_patterns("*.tmp")
        shutil.copytree(old, self.directory, ignore=names)
        for moody in self.moody.values():
            moody.moods.clear()
        self.forwarder.stop(0)

    def _last_segment(self) -> Path:
        return max((self.directory / "events").glob("*.segment"))

    @invariant()
    def nothing_wrong_is_delivered(self) -> None:
        known = self.acknowledged | self.perhaps
        for sink in self.sinks.values():
            for offset, line in sink.taken("events"):
                assert known.get(offset, line) == line or b"events_lost" in line

    def teardown(self) -> None:
        for moody in self.moody.values():
            moody.moods.clear()
        expected = set(self.acknowledged)
        for name, sink in self.sinks.items():
            until(lambda sink=sink: expected <= {offset for offset, _ in sink.taken("events")})  # type: ignore[misc]
            assert self.forwarder.status()["sinks"][name]["events"]["lost"] <= len(self.perhaps)
            in_order(sink.taken("events"))
        self.forwarder.stop()
        shutil.rmtree(self.root)


def in_order(taken: list[tuple[int, bytes]]) -> None:
    """A record comes for the first time only after all that were before it: repeats start anywhere, no gap fills up."""
    seen: list[int] = []
    for offset, _ in taken:
        if not seen or offset > seen[-1]:
            seen.append(offset)
    assert set(seen) == {offset for offset, _ in taken}


TestNoLoss = NoLoss.TestCase
TestNoLoss.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
