"""`tocsin resend SINK`."""

from __future__ import annotations

from typing import Annotated

import typer

from tocsin.cli._ask import post
from tocsin.cli._options import Config, Json


def resend(
    sink: Annotated[str, typer.Argument(help="store, correlator, playbooks, or inbox (lines that were too long).")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Take a sink's dead letters out again, once the reason why it refused them is mended. See `tocsin status`.

    [bold]Example:[/] tocsin resend store
    """
    from urllib.parse import quote

    from tocsin.terminal import print_json, print_text

    found = post(config, "forwarder", f"/deadletters/resend?sink={quote(sink, safe='')}", timeout_s=60)
    if as_json:
        print_json(found)
    elif found["resent"]:
        print_text(f"{found['resent']} dead letters of {sink} are on their way again")
    else:
        print_text(f"{sink} has no dead letters that can be sent again")
