"""A playbooks process for test_crash.py: takes one alert, waits until its work is done, tells what there is, stops."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scene import CONTAINER, alert, no_secrets, probes, until

from ecs_mappings.event import decode, encode
from playbooks.daemon_fake import FakeDaemon
from playbooks.live import Services
from playbooks.playbooks import Playbooks, shown
from playbooks.schema import load


def main(directory: Path, *tasks: str) -> None:
    daemon = FakeDaemon()
    daemon.add(id=CONTAINER, started_at=datetime(2020, 1, 1, tzinfo=UTC))
    emitted: list[str] = []
    sent: list[str] = []
    core = Playbooks(
        load([directory / "playbook.yml"]),
        directory / "ledger",
        Services(daemon=daemon, secrets=no_secrets, evidence_dir=directory / "evidence"),
        lambda delivery: sent.append(delivery.id),
        lambda lines: emitted.extend(decode(line).event.id for line in lines),
        own_ids=(),
    )
    core.start()
    if "take" in tasks:
        core.take([encode(alert("the-alert"))])
    until(lambda: not core._ledger.unfinished())
    if "undone" in tasks:
        until(lambda: not core._ledger.undos(state="armed"))
    until(lambda: not core._ledger.messages("pending") and not core._ledger.responses(1))
    seen: dict[str, Any] = {
        "runs": [shown(r) for r in core._ledger.runs(10)],
        "steps": [shown(s) for r in core._ledger.runs(10) for s in core._ledger.steps(r.id)],
        "undos": [shown(u) for u in core._ledger.undos()],
        "sent": len(core._ledger.messages("delivered")),
        "emitted": len(emitted),
        "emitted_ids": emitted,
    }
    core.stop()
    print(json.dumps(seen))


if __name__ == "__main__":
    with probes():
        main(Path(sys.argv[1]), *sys.argv[2:])
