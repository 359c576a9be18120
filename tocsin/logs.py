"""How our processes log: ECS JSON for machines, short lines for people. Owns the format, not what is said or where to.

Code logs with the standard library: a sentence for people, and `extra={"event.action": ...}` (ECS names, with their
dots) for machines. Log text may quote an event, so neither form lets a control character through.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from tocsin.printable import printable

Style = Literal["json", "human"]

MAX_MESSAGE = 8192
ECS_VERSION = "9.4.0"  # the contract's; a test holds the two together, for the floor imports nothing of ours

_LEVEL_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


class EcsFormatter(logging.Formatter):
    """One JSON object a line, by the ECS logging specification (dotted names)."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "@timestamp": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage()[:MAX_MESSAGE],
            "ecs.version": ECS_VERSION,
            "service.name": "tocsin",
            "service.node.name": self._process,
            "log.logger": record.name,
            "process.pid": record.process,
        }
        entry.update((key, value) for key, value in vars(record).items() if "." in key)
        if record.exc_info and record.exc_info[0] is not None:
            entry["error.type"] = record.exc_info[0].__name__
            entry["error.message"] = str(record.exc_info[1])[:MAX_MESSAGE]
            entry["error.stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class HumanFormatter(logging.Formatter):
    """`12:30:01.250 warning: sentence`; a traceback follows only for what is a defect of ours."""

    def __init__(self, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        time = _time(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        colour = _LEVEL_COLOURS.get(record.levelname)
        if self._colours and colour and level:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        line = f"{time} {level}{printable(record.getMessage()[:MAX_MESSAGE])}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(f"  {printable(x)}" for x in trace)])
        return line


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def configure(
    process: str, style: Style | None = None, stream: TextIO | None = None, level: int = logging.INFO
) -> None:
    """Sends the root logger to `stream` (default stderr), replacing what was set up before.

    Without a style: lines for people on a terminal, JSON elsewhere.
    """
    out = stream or sys.stderr
    human = out.isatty() if style is None else style == "human"
    handler = logging.StreamHandler(out)
    handler.setFormatter(HumanFormatter(colours=out.isatty()) if human else EcsFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Libraries that speak per request; a fault of theirs reaches us as an exception.
    for noisy in ("httpx", "httpcore", "elastic_transport", "elasticsearch", "docker", "urllib3", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING if noisy != "elastic_transport" else logging.ERROR)
