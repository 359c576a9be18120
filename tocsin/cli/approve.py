"""`tocsin approve`."""

from __future__ import annotations

from typing import Annotated

import typer

from tocsin.cli._ask import By
from tocsin.cli._decide import decide
from tocsin.cli._options import Config, Json


def approve(
    approval: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of the approval, or its start.")] = None,
    by: By = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let a step that waits go on; without an ID show what waits.

    [bold]Examples:[/] tocsin approve
    tocsin approve 4be1
    """
    decide("approve", approval, by, config, as_json)
