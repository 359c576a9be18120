"""The sensor's process: hands events to the forwarder, and keeps our own processes out of the picture."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sensor import checks
from sensor.sensor import Sensor
from tocsin import link, running
from tocsin.settings import Settings

log = logging.getLogger(__name__)

SIBLINGS_EVERY_S = 1.0


def prepare(settings: Settings) -> SensorProcess:
    """Refuses a host where nothing can be captured: ConfigError with each reason and what mends it."""
    checks.need()
    return SensorProcess(settings)


@dataclass
class SensorProcess:
    settings: Settings

    async def run(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        failure: list[BaseException] = []

        def failed(e: BaseException) -> None:
            failure.append(e)
            loop.call_soon_threadsafe(stop.set)

        chosen = self.settings.sensor
        sensor = Sensor(
            _deliverer(link.Client(self.settings.socket("forwarder"))),
            self.settings.state("sensor"),
            scope=chosen.scope, docker=chosen.docker, queue_events=chosen.queue_events, ring_mib=chosen.ring_mib,
            heartbeat_s=chosen.heartbeat_s, strict=chosen.strict, on_failure=failed,
        )  # fmt: skip

        async def status(_: link.Request) -> link.Reply:
            return link.Reply.json(sensor.status())

        async with link.serving(self.settings.socket("sensor"), {("GET", "/status"): status}):
            sensor.start()
            siblings = asyncio.create_task(self._exclude_siblings(sensor))
            try:
                await stop.wait()
            finally:
                siblings.cancel()
                sensor.stop()
        if failure:
            raise failure[0]

    async def _exclude_siblings(self, sensor: Sensor) -> None:
        """The supervisor and its children, as they come and go; they matter in scope `all`."""
        known: set[int] = set()
        while True:
            state = running.read_state(self.settings.paths.run_dir) or {}
            pids = {p.get("pid") for p in state.get("processes", {}).values()} | {state.get("pid")}
            found = {pid for pid in pids if isinstance(pid, int)}
            if found != known:
                known = found
                sensor.exclude(found)
            await asyncio.sleep(SIBLINGS_EVERY_S)


def _deliverer(client: link.Client) -> Callable[[list[bytes]], None]:
    def deliver(lines: list[bytes]) -> None:
        client.post("/events", b"\n".join([*lines, b""]))

    return deliver
