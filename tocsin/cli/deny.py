"""`tocsin deny`."""

from __future__ import annotations

from typing import Annotated

import typer

from tocsin.cli._ask import By
from tocsin.cli._decide import decide
from tocsin.cli._options import Config, Json


def deny(
    approval: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of the approval, or its start.")] = None,
    by: By = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Refuse a step that waits; without an ID show what waits.

    [bold]Examples:[/] tocsin deny
    tocsin deny 4be1
    """
    decide("deny", approval, by, config, as_json)
