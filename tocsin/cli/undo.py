"""`tocsin undo list` and `tocsin undo now`."""

from __future__ import annotations

from typing import Annotated

import typer

from tocsin.cli._ask import UNDO_TIMEOUT_S, By, decided_by, full_id, get, post, time_of
from tocsin.cli._options import Config, Json

app = typer.Typer(help="What will be taken back, and when; or take it back now.")


@app.command("list")
def list_undos(
    every: Annotated[bool, typer.Option("--all", help="Those done, failed and disarmed too.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What is armed, the next due first.

    [bold]Example:[/] tocsin undo list
    """
    from tocsin.terminal import print_json, print_table, state

    found = get(config, "playbooks", "/undos?limit=1000" + ("" if every else "&state=armed"))
    if as_json:
        for undo in found:
            print_json(undo)
        return
    rows = (
        (undo["run_id"][:12], undo["step_id"], undo["uses"], state(undo["state"]),
         time_of(undo["due_ns"]) or "when asked", (undo["container_id"] or "")[:12], undo["reason"])
        for undo in found
    )  # fmt: skip
    print_table(("RUN", "STEP", "ACTION", "STATE", "DUE", "CONTAINER", "REASON"), rows, empty="nothing is armed")


@app.command()
def now(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, or its start.")],
    by: By = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Take back every step of a run that can be, the last first. Works while everything is halted, too.

    Exit 1 if a step could not be taken back.

    [bold]Example:[/] tocsin undo now 3f9a
    """
    from tocsin.terminal import print_json, print_state

    path = f"/undo/{full_id(config, 'runs', run)}?{decided_by(by)}"
    found = post(config, "playbooks", path, UNDO_TIMEOUT_S)
    for undo in found:
        if as_json:
            print_json(undo)
        else:
            print_state("ok" if undo["state"] == "done" else "fail", f"{undo['step_id']}: {undo['reason']}")
    if any(undo["state"] != "done" for undo in found):
        raise typer.Exit(1)
