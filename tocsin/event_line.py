"""One event on the terminal: a line for people, or the document for machines."""

from __future__ import annotations

import json

from ecs_mappings.event import decode
from tocsin.describe import local, subject, summary
from tocsin.printable import printable
from tocsin.terminal import print_json, print_line

_STYLES = {"alert": "red", "response": "cyan", "sensor": "dim"}


def print_event(document: bytes, as_json: bool) -> None:
    """An encoded event."""
    if as_json:
        print_json(json.loads(document))
        return
    event = decode(document)
    kind = event.event.dataset.removeprefix("tocsin.")
    name = printable(subject(event), 20)
    print_line(f"{local(event.timestamp)}  {kind:<9} {name:<20}  {summary(event)}", style=_STYLES.get(kind, ""))
