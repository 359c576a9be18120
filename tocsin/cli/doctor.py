"""`tocsin doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tocsin.cli._options import Config, Json, settings

if TYPE_CHECKING:
    from tocsin.settings import Settings


def doctor(
    show_settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting with its value, default and meaning instead.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check what this host can do, and say what mends what it cannot. Exit 1 if something must be mended.

    [bold]Examples:[/] tocsin doctor
    tocsin doctor --settings --json
    """
    loaded = settings(config)
    if show_settings:
        _settings(loaded, as_json)
        return
    from tocsin import terminal
    from tocsin.doctor import examine

    failed = False
    for check in examine(loaded):
        failed = failed or check.state == "fail"
        if as_json:
            terminal.print_json(check._asdict())
            continue
        terminal.print_state(check.state, f"{check.name:<18} {check.detail}")
        if check.remedy:
            terminal.print_text(f"     → {check.remedy}")
    if failed:
        raise typer.Exit(1)


def _settings(loaded: Settings, as_json: bool) -> None:
    from tocsin import terminal
    from tocsin.doctor import all_settings

    for found in all_settings(loaded):
        if as_json:
            terminal.print_json(found)
            continue
        changed = found["value"] != found["default"]
        default = f"   (default {found['default']})" if changed else ""
        terminal.print_text(f"{found['key']} = {found['value']}{default}", style="bold" if changed else "")
        terminal.print_text(f"    {found['description']} {found['variable']}", style="dim")
