"""`tocsin resume`."""

from __future__ import annotations

from tocsin.cli._ask import By, decided_by, post
from tocsin.cli._options import Config, Json


def resume(by: By = None, config: Config = None, as_json: Json = False) -> None:
    """Take the kill switch back: playbooks act again, and undos that came due meanwhile run.

    [bold]Example:[/] tocsin resume
    """
    from tocsin.terminal import print_json, print_text

    found = post(config, "playbooks", f"/resume?{decided_by(by)}")
    if as_json:
        print_json(found)
    else:
        print_text("playbooks act again")
