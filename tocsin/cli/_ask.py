"""What commands share that ask a running process over its socket: who asks, which id is meant, how it fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from tocsin.cli._options import settings

if TYPE_CHECKING:
    from tocsin.link import Client

UNDO_TIMEOUT_S = 300.0
"""Each step may take a minute to take back."""

By = Annotated[str | None, typer.Option("--by", help="Who decides, for the audit.", show_default="the user logged in")]


def get(config: Path | None, process: str, path: str) -> Any:
    return _call(config, process, "GET", path)


def post(config: Path | None, process: str, path: str, timeout_s: float = 30.0) -> Any:
    return _call(config, process, "POST", path, timeout_s)


def _call(config: Path | None, process: str, method: str, path: str, timeout_s: float = 30.0) -> Any:
    """The answer, decoded. TocsinError (exit 1) when nobody answers; UsageError (exit 2) when it refuses."""
    with asking(config, process, timeout_s) as client:
        return (client.get(path) if method == "GET" else client.post(path)).decoded()


@contextlib.contextmanager
def asking(config: Path | None, process: str, timeout_s: float = 30.0) -> Iterator[Client]:
    """A client of the process, whose errors are told as people need them."""
    from tocsin.errors import Rejected, RetryLater, TocsinError, UsageError
    from tocsin.link import Client

    socket = settings(config).socket(process)
    client = Client(socket, timeout_s)
    try:
        yield client
    except Rejected as e:
        raise UsageError(str(e)) from e
    except RetryLater as e:
        raise TocsinError(f"{process} does not answer: {e}; see `tocsin status`") from e
    finally:
        client.close()


def decided_by(by: str | None) -> str:
    """The query part that names who asks: who logged in, whatever user sudo made of them."""
    name = by or os.environ.get("SUDO_USER") or os.environ.get("USER") or _user()
    return f"by={quote(name, safe='')}"


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def full_id(config: Path | None, kind: str, given: str) -> str:
    """The id that begins as given, among the newest thousand of `runs` or `approvals`."""
    from tocsin.story import one_of

    ids = [str(x["id"]) for x in get(config, "playbooks", f"/{kind}?limit=1000")]
    return one_of(ids, given, kind.removesuffix("s"), f"tocsin {'runs list' if kind == 'runs' else 'approve'}")


def time_of(ns: int | None) -> str:
    """A ledger's time for people."""
    from tocsin.describe import local

    return "" if ns is None else local(datetime.fromtimestamp(ns / 1e9, UTC))
