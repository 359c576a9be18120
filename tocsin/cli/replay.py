"""`tocsin replay FILE`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tocsin.cli._ask import asking
from tocsin.cli._options import Config, Json, settings

if TYPE_CHECKING:
    from tocsin.settings import Settings

BATCH = 500


def replay(
    file: Annotated[Path, typer.Argument(help="Made by `tocsin record`.", exists=True, dir_okay=False)],
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Judge it with the rules, and show the alerts only.")
    ] = False,
    send: Annotated[
        bool,
        typer.Option(
            "--send", help="Send it to the Tocsin that runs here: stored, judged and answered like any event."
        ),
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show the events of a recording: the same, byte for byte, without root and without a kernel.

    [bold]Examples:[/] tocsin replay attack.tocsin --json
    tocsin replay attack.tocsin --alerts
    """
    from sensor.sources.replay import replay as events
    from tocsin.errors import UsageError
    from tocsin.event_line import print_event

    if alerts and send:
        raise UsageError("--alerts judges here and --send lets the running Tocsin judge: choose one")
    loaded = settings(config)
    if send:
        typer.echo(f"{_send(config, events(file))} events sent")
        return
    for document in _judged(loaded, events(file)) if alerts else events(file):
        print_event(document, as_json)


def _judged(loaded: Settings, events: Iterable[bytes]) -> Iterator[bytes]:
    from correlator.engine import Engine
    from ecs_mappings.event import encode
    from tocsin.inputs import load_rules

    engine = Engine(load_rules(loaded), loaded.correlator.group_span_s)
    for offset, document in enumerate(events):
        yield from map(encode, engine.feed(offset, [document]))


def _send(config: Path | None, events: Iterator[bytes]) -> int:
    from itertools import islice

    sent = 0
    with asking(config, "forwarder") as client:
        while batch := list(islice(events, BATCH)):
            client.post("/events", b"\n".join([*batch, b""]))
            sent += len(batch)
    return sent
