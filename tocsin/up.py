"""What `tocsin up` supervises: our own processes, their order, their logs. How to supervise is tocsin.supervise."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from tocsin import link, privileges, processes
from tocsin.errors import RetryLater, TocsinError
from tocsin.logs import Style
from tocsin.printable import printable
from tocsin.settings import Settings
from tocsin.supervise import Supervisor, write_line

log = logging.getLogger(__name__)

START_ORDER = ("forwarder", "correlator", "playbooks", "sensor")
STOP_ORDER = ("sensor", "correlator", "playbooks", "forwarder")
"""Producers first; the forwarder last, so that alerts and responses of the last events still reach the spool."""


def run(settings: Settings, config: Path | None, style: Style) -> None:
    """Supervises until SIGTERM or SIGINT. Raises TocsinError when it cannot start; nothing runs then."""
    os.umask(0o077)
    for name in START_ORDER:
        processes.make_directories(settings, name)
    for hindrance, names in privileges.hindrances(settings).items():
        log.warning(
            "%s: must stay root: %s. To mend it: %s", ", ".join(names), *hindrance, extra={"event.action": "root_kept"}
        )
    base = [sys.executable, "-P", "-m", "tocsin", "start"]
    options = ["--supervised", "--log", style, *(["--config", str(config)] if config else [])]
    supervisor = Supervisor(
        {name: [*base, name, *options] for name in START_ORDER},
        settings.paths.run_dir,
        STOP_ORDER,
        lambda name: asyncio.to_thread(_answers, settings.socket(name)),
        _print_json if style == "json" else _print_human,
        lambda seconds: log.info("ready after %.1f s", seconds, extra={"event.action": "ready"}),
    )
    asyncio.run(_until_signal(supervisor))


async def _until_signal(supervisor: Supervisor) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await supervisor.run(stop)


def _answers(socket: Path) -> bool:
    client = link.Client(socket, timeout_s=2)
    try:
        client.get("/status")
    except RetryLater:
        return False
    except TocsinError:
        return True
    finally:
        client.close()
    return True


def _print_human(name: str, line: str) -> None:
    write_line(f"{name:<10} {line}")


def _print_json(name: str, line: str) -> None:
    """JSON passes as it is; anything else (a crash of the interpreter, a library that prints) is wrapped."""
    if not line.startswith("{"):
        line = json.dumps({"message": printable(line), "service.name": "tocsin", "service.node.name": name})
    write_line(line)
