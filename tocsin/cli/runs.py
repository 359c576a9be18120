"""`tocsin runs list` and `tocsin runs show`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from tocsin.cli._ask import full_id, get, time_of
from tocsin.cli._options import Config, Json

app = typer.Typer(help="What was done: runs of playbooks, step by step.")


@app.command("list")
def list_runs(
    state: Annotated[
        Literal["queued", "running", "waiting", "done", "failed", "suppressed", "merged"] | None,
        typer.Option("--state", help="Only those in this state."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Most results.")] = 50,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Runs of playbooks, newest first.

    [bold]Examples:[/] tocsin runs list
    tocsin runs list --state waiting --json
    """
    from urllib.parse import urlencode

    from tocsin import terminal

    found = get(config, "playbooks", "/runs?" + urlencode({"limit": limit, **({"state": state} if state else {})}))
    if as_json:
        for run in found:
            terminal.print_json(run)
        return
    rows = (
        (run["id"][:12], time_of(run["created_ns"]), terminal.state(run["state"]), run["playbook"], run["mode"],
         run["rule"], run["container_name"], run["reason"])
        for run in found
    )  # fmt: skip
    terminal.print_table(
        ("ID", "TIME", "STATE", "PLAYBOOK", "MODE", "RULE", "CONTAINER", "REASON"), rows, empty="no playbook has run"
    )


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="ID", help="Id of the run, or its start.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """One run: each step with its outcome, whether it was verified, and what is armed to take it back.

    [bold]Example:[/] tocsin runs show 3f9a
    """
    from tocsin.terminal import print_json

    found = get(config, "playbooks", f"/runs/{full_id(config, 'runs', run)}")
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(run: dict[str, Any]) -> None:
    from tocsin.terminal import print_table, print_text, state

    where = f" in {run['container_name']}" if run["container_name"] else ""
    print_text(f"{run['playbook']} ({run['mode']}, revision {run['revision']}) for {run['rule']}{where}", style="bold")
    print_text(f"id {run['id']}, alert {run['alert_id']}")
    reason = f": {run['reason']}" if run["reason"] else ""
    print_text(f"{run['state']} since {time_of(run['ended_ns'] or run['created_ns'])}{reason}")
    rows = (
        (step["step_id"], step["uses"], state(step["outcome"] or step["state"]), _verified(step),
         _took(step), step["attempts"], step["reason"])
        for step in run["steps"]
    )  # fmt: skip
    print_table(("STEP", "ACTION", "OUTCOME", "VERIFIED", "TOOK>", "ATTEMPTS>", "REASON"), rows, empty="no step yet")
    for undo in run["undos"]:
        due = f", due {time_of(undo['due_ns'])}" if undo["due_ns"] and undo["state"] == "armed" else ""
        reason = f": {undo['reason']}" if undo["reason"] else ""
        print_text(f"undo of {undo['step_id']}: {undo['state']}{due}{reason}")


def _verified(step: dict[str, Any]) -> str:
    return {True: "yes", False: "NO", None: ""}[step["verified"]]


def _took(step: dict[str, Any]) -> str:
    if step["ended_ns"] is None:
        return ""
    return f"{(step['ended_ns'] - step['begun_ns']) / 1e6:.0f} ms"
