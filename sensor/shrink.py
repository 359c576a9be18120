"""The last resort for an event that nobody would take: makes it short enough, and says what is missing."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from ecs_mappings.event import Event
from sensor.program import first

KEPT_TEXT = 8192


def shrunk(event: Event) -> Event:
    """An event too long to be taken, without the parent's arguments, ancestors and labels, and its own texts cut.

    Only bytes that JSON writes as six characters can get it here.
    """
    process, container, tocsin = event.process, event.container, event.tocsin
    cut = set() if not tocsin or not tocsin.truncated else set(tocsin.truncated)
    if process:
        parent = process.parent and msgspec.structs.replace(process.parent, args=UNSET, command_line=UNSET)
        args = process.args and first(process.args, KEPT_TEXT)
        command_line = process.command_line and process.command_line[:KEPT_TEXT]
        process = msgspec.structs.replace(process, parent=parent, args=args, command_line=command_line)
        cut |= {
            "process.args", "process.command_line", "process.parent.args", "process.parent.command_line",
        }  # fmt: skip
    if container:
        container = msgspec.structs.replace(container, labels=UNSET)
        cut.add("container.labels")
    if tocsin and tocsin.process:
        tocsin = msgspec.structs.replace(tocsin, process=msgspec.structs.replace(tocsin.process, ancestors=UNSET))
        cut.add("tocsin.process.ancestors")
    if tocsin:
        tocsin = msgspec.structs.replace(tocsin, truncated=sorted(cut))
    return msgspec.structs.replace(event, process=process, container=container, tocsin=tocsin)
