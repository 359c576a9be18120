"""`tocsin start NAME`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from tocsin.cli._options import Config, settings


def _names(incomplete: str) -> list[str]:
    from tocsin import processes

    return [name for name in processes.names() if name.startswith(incomplete)]


def start(
    name: Annotated[str, typer.Argument(help="sensor, forwarder, correlator or playbooks.", autocompletion=_names)],
    config: Config = None,
    check: Annotated[bool, typer.Option("--check", help="Check every input, start nothing.")] = False,
    log: Annotated[
        Literal["auto", "human", "json"], typer.Option("--log", help="auto: for people on a terminal, else JSON.")
    ] = "auto",
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run one process in the foreground, until Ctrl-C or SIGTERM.

    Every input is checked first: what is wrong is printed with file and line, and nothing starts (exit 2).

    [bold]Example:[/] tocsin start correlator --config ./tocsin.toml
    """
    from tocsin import logs, processes

    logs.configure(name, None if log == "auto" else log)
    processes.start(name, settings(config), supervised=supervised, check_only=check)
    if check:
        typer.echo(f"{name}: every input is good")
