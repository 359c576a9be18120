"""The options that every command takes, and the settings they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tocsin.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="TOCSIN_CONFIG", help="Settings file.", show_default="/etc/tocsin/tocsin.toml", hidden=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For machines: one JSON object a line.")]


def settings(config: Path | None) -> Settings:
    """The settings that this call sees: file, then TOCSIN_* variables. ConfigError names every wrong key."""
    from tocsin.settings import load

    return load(config)
