"""`tocsin audit verify`."""

from __future__ import annotations

import typer

from tocsin.cli._options import Config, Json, settings

app = typer.Typer(help="The audit: who and what changed something, in a chain of hashes.")


@app.command()
def verify(config: Config = None, as_json: Json = False) -> None:
    """Check that no row of the audit was changed, removed or inserted, in the ledger and in audit.log. Exit 1 if so.

    Works while Tocsin runs and while it does not.

    [bold]Example:[/] tocsin audit verify
    """
    from playbooks.audit import broken, differences, read
    from playbooks.ledger import audit_of
    from playbooks.playbooks import AUDIT_FILE
    from tocsin.terminal import print_json, print_state

    directory = settings(config).state("playbooks")
    file = directory / AUDIT_FILE
    written = list(read(file))
    rows = audit_of(directory)
    problems = [*broken(rows, "ledger"), *broken(written, AUDIT_FILE), *differences(rows, written, AUDIT_FILE)]
    if as_json:
        last = rows[-1].hash if rows else None
        print_json({"ok": not problems, "rows": len(rows), "last": last, "problems": [str(p) for p in problems]})
    else:
        for problem in problems:
            print_state("fail", str(problem))
        if not problems:
            print_state("ok", f"{len(rows)} rows, the chain holds")
    if problems:
        raise typer.Exit(1)
