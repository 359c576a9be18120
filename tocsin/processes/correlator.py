"""The correlator's process: rules and allow-list from the files of the settings, alerts to the forwarder."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from correlator.correlator import Correlator
from correlator.forwarder_link import ForwarderLink
from correlator.ruleset import RuleSet
from tocsin import link
from tocsin.inputs import load_rules
from tocsin.settings import Settings

log = logging.getLogger(__name__)


def prepare(settings: Settings) -> CorrelatorProcess:
    """Reads and compiles all rules: ConfigError with every problem of every file."""
    return CorrelatorProcess(settings, load_rules(settings))


@dataclass
class CorrelatorProcess:
    settings: Settings
    rules: RuleSet

    async def run(self, stop: asyncio.Event) -> None:
        for warning in self.rules.warnings:
            log.warning("%s", warning, extra={"event.action": "rule_warning"})
        forwarder = ForwarderLink(link.Client(self.settings.socket("forwarder")))
        correlator = Correlator(
            self.rules,
            forwarder,
            self.settings.state("correlator") / "snapshot",
            group_span_s=self.settings.correlator.group_span_s,
        )
        await correlator.start()
        try:
            async with link.serving(self.settings.socket("correlator"), correlator.routes()):
                alerting = sum(rule.alerts for rule in self.rules.rules)
                log.info("%d alerting rules are loaded", alerting, extra={"event.action": "started"})
                await stop.wait()
        finally:
            await correlator.stop()
            forwarder.close()
            log.info("the correlator has stopped", extra={"event.action": "stopped"})
