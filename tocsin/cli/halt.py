"""`tocsin halt`."""

from __future__ import annotations

from tocsin.cli._ask import By, decided_by, post
from tocsin.cli._options import Config, Json


def halt(by: By = None, config: Config = None, as_json: Json = False) -> None:
    """Throw the kill switch: from now on nothing is changed, not even by an undo that is due. Survives restarts.

    [bold]Example:[/] tocsin halt
    """
    from tocsin.terminal import print_json, print_text

    found = post(config, "playbooks", f"/halt?{decided_by(by)}")
    if as_json:
        print_json(found)
    else:
        print_text(f"everything is halted by {found['halted_by']}; go on with: tocsin resume")
