"""The playbooks' process: playbooks from the files of the settings, Docker to act on, receivers to tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from playbooks.daemon import DockerDaemon
from playbooks.delivery import Sender
from playbooks.document import Mode
from playbooks.live import Services
from playbooks.playbooks import Playbooks
from playbooks.schema import Playbook
from tocsin import link
from tocsin.inputs import load_playbooks
from tocsin.settings import Settings, secret

log = logging.getLogger(__name__)

STOP_S = 8.0


def prepare(settings: Settings) -> PlaybooksProcess:
    """Reads all playbooks and every secret they name: ConfigError with every problem.

    Docker need not be there: steps that need it fail with the reason, and `tocsin doctor` says so beforehand.
    """
    # Each is read once, now: who has given up root cannot read it again.
    secrets = cache(partial(secret, settings))
    playbooks = load_playbooks(settings, secrets=secrets)
    return PlaybooksProcess(settings, playbooks, DockerDaemon(settings.playbooks.docker), secrets)


@dataclass
class PlaybooksProcess:
    settings: Settings
    playbooks: Sequence[Playbook]
    daemon: DockerDaemon
    secrets: Callable[[str], str]

    async def run(self, stop: asyncio.Event) -> None:
        chosen = self.settings.playbooks
        directory = self.settings.state("playbooks")
        sender = Sender(self.secrets)
        forwarder = link.Client(self.settings.socket("forwarder"))
        service = Playbooks(
            self.playbooks,
            directory,
            Services(
                daemon=self.daemon,
                secrets=self.secrets,
                evidence_dir=directory / "evidence",
                evidence_limit_bytes=chosen.evidence_mib * 1024 * 1024,
                console_url=chosen.console_url,
            ),
            sender.send,
            partial(_emit, forwarder),
            mode_ceiling=Mode(chosen.mode),
            protect_labels=chosen.protect_labels,
        )
        service.start()
        try:
            async with link.serving(self.settings.socket("playbooks"), service.routes()):
                log.info("%d playbooks are loaded", len(self.playbooks), extra={"event.action": "started"})
                await stop.wait()
        finally:
            await asyncio.to_thread(service.stop, STOP_S)
            sender.close()
            self.daemon.close()
            log.info("the playbooks have stopped", extra={"event.action": "stopped"})


def _emit(forwarder: link.Client, lines: Sequence[bytes]) -> None:
    forwarder.post("/events", b"\n".join([*lines, b""]))
