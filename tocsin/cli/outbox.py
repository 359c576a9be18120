"""`tocsin outbox list` and `tocsin outbox resend`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tocsin.cli._ask import get, post, time_of
from tocsin.cli._options import Config, Json

app = typer.Typer(help="Messages to receivers outside: webhooks and Slack.")

STATES = ("dead", "pending", "delivered")


@app.command("list")
def list_messages(
    state: Annotated[
        Literal["dead", "pending", "delivered"] | None,
        typer.Option("--state", help="dead: given up.", show_default="dead and pending"),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Messages that nobody took (dead), and those still on their way (pending), with the reason.

    [bold]Examples:[/] tocsin outbox list
    tocsin outbox list --state delivered --json
    """
    from tocsin import terminal

    found = [message for name in ([state] if state else STATES[:2]) for message in _messages(config, name)]
    if as_json:
        for message in found:
            terminal.print_json(message)
        return
    rows = (
        (m["id"][:12], terminal.state(m["state"]), m["sender"], m["run_id"][:12], m["attempts"],
         time_of(m["next_ns"]) if m["state"] == "pending" else "", m["reason"])
        for m in found
    )  # fmt: skip
    terminal.print_table(("ID", "STATE", "BY", "RUN", "ATTEMPTS>", "NEXT", "REASON"), rows, empty="no message waits")


@app.command()
def resend(
    message: Annotated[str, typer.Argument(metavar="ID", help="Id of a dead message, or its start; or `all`.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Try a dead message again, once its receiver is mended. The receiver tells repeats by the message's id.

    [bold]Examples:[/] tocsin outbox resend 4be1
    tocsin outbox resend all
    """
    from tocsin.story import one_of
    from tocsin.terminal import print_json, print_text

    dead = [str(m["id"]) for m in _messages(config, "dead")]
    chosen = dead if message == "all" else [one_of(dead, message, "dead message", "tocsin outbox list")]
    for id in chosen:
        found = post(config, "playbooks", f"/outbox/{id}")
        if as_json:
            print_json(found)
        else:
            print_text(f"{id[:12]} is tried again now")
    if not chosen and not as_json:
        print_text("there is no dead message")


def _messages(config: Path | None, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(config, "playbooks", f"/outbox?state={state}&limit=10000")
    return found
