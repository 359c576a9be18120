"""The forwarder's process: its sinks are the store of the settings and the sockets of correlator and playbooks."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from forwarder.forwarder import Forwarder
from forwarder.limits import Limits
from forwarder.sinks import Sink
from forwarder.sinks.correlator import CorrelatorSink
from forwarder.sinks.playbooks import PlaybooksSink
from forwarder.sinks.store import StoreSink
from store import Store
from tocsin import link
from tocsin.settings import Settings
from tocsin.storage import check_place, open_store

log = logging.getLogger(__name__)

SINK_TIMEOUT_S = 30.0
FLUSH_S = 5.0


def prepare(settings: Settings) -> ForwarderProcess:
    """A store file that cannot be used is an error; a cluster that is away is not: events wait in the spool."""
    check_place(settings)
    return ForwarderProcess(settings, open_store(settings))


@dataclass
class ForwarderProcess:
    settings: Settings
    store: Store

    async def run(self, stop: asyncio.Event) -> None:
        sinks: dict[str, Sink] = {
            "store": StoreSink(self.store),
            "correlator": CorrelatorSink(link.Client(self.settings.socket("correlator"), SINK_TIMEOUT_S)),
            "playbooks": PlaybooksSink(link.Client(self.settings.socket("playbooks"), SINK_TIMEOUT_S)),
        }
        chosen = self.settings.forwarder
        limits = Limits(spool_bytes=chosen.spool_mib << 20, retain_s=chosen.retain_s)
        forwarder = Forwarder(self.settings.state("forwarder"), sinks, limits)
        forwarder.start()
        try:
            async with link.serving(self.settings.socket("forwarder"), forwarder.routes()):
                look = asyncio.create_task(asyncio.to_thread(self._say_if_away))
                await stop.wait()
                look.cancel()
        finally:
            await asyncio.to_thread(forwarder.stop, FLUSH_S)
            self.store.close()

    def _say_if_away(self) -> None:
        """One line at the start: what delivery says later may be long in coming when nothing happens."""
        status = self.store.status()
        if not status.reachable:
            log.warning(
                "the store %s does not answer (%s): events wait in the spool", status.place, status.problem,
                extra={"event.action": "store_unreachable"},
            )  # fmt: skip
