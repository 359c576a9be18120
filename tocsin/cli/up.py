"""`tocsin up`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from tocsin.cli._options import Config, settings


def up(
    config: Config = None,
    log: Annotated[
        Literal["auto", "human", "json"], typer.Option("--log", help="auto: for people on a terminal, else JSON.")
    ] = "auto",
) -> None:
    """Run all of Tocsin on this host and keep it running.

    Every input is checked first: what is wrong is printed with file and line, and nothing starts (exit 2). Prints
    `ready` when all processes answer. Ctrl-C or SIGTERM stops them in order, and loses nothing.

    [bold]Example:[/] tocsin up --config ./tocsin.toml
    """
    import sys

    from tocsin import logs, up

    style: logs.Style = log if log != "auto" else "human" if sys.stderr.isatty() else "json"
    logs.configure("supervisor", style)
    up.run(settings(config), config, style)
