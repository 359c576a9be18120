"""Docker's event messages as facts: which of them become events, and under which name. Owns the table."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from ecs_mappings.event import Container, ContainerDetail, Image, Process
from sensor.frames import LifecycleFact

ACTIONS = {
    ("container", "create"): ("created", "info"),
    ("container", "start"): ("started", "start"),
    ("container", "restart"): ("restarted", "change"),
    ("container", "pause"): ("paused", "change"),
    ("container", "unpause"): ("unpaused", "change"),
    ("container", "kill"): ("signalled", "change"),
    ("container", "stop"): ("stopped", "end"),
    ("container", "die"): ("died", "end"),
    ("container", "oom"): ("oom", "info"),
    ("container", "destroy"): ("removed", "end"),
    ("container", "rename"): ("renamed", "change"),
    ("container", "update"): ("updated", "change"),
    ("container", "attach"): ("attached", "info"),
    ("container", "commit"): ("committed", "info"),
    ("container", "export"): ("exported", "info"),
    ("container", "archive-path"): ("copied_from", "info"),
    ("container", "extract-to-dir"): ("copied_to", "change"),
    ("container", "exec_start"): ("exec_started", "start"),
    ("container", "exec_die"): ("exec_ended", "end"),
    ("network", "connect"): ("network_connected", "change"),
    ("network", "disconnect"): ("network_disconnected", "change"),
    ("image", "pull"): ("image_pulled", "info"),
    ("image", "load"): ("image_loaded", "info"),
    ("image", "import"): ("image_imported", "info"),
    ("image", "delete"): ("image_removed", "info"),
}
"""(Docker's type, its action) -> (event.action, event.type). What is not here becomes no event: exec_create (exec_start
follows), resize, top, health_status and the like are the noise of every day."""

_CHANGES = {"create", "start", "rename", "update"}
MAX_TEXT = 8192
MAX_LABELS, MAX_LABEL_TEXT = 64, 256
MAX_LABELS_TEXT = 8192
"""All labels come with every event of the container."""


def fact_of(event: Mapping[str, Any]) -> LifecycleFact | None:
    """None for what becomes no event. Raises ValueError, TypeError or AttributeError for what Docker never sends."""
    action, command = _action(event)
    known = ACTIONS.get((str(event.get("Type")), action))
    if known is None:
        return None
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    exit_code = attributes.get("exitCode")
    container_id = container_of(event)
    return LifecycleFact(
        time_ns=int(event["timeNano"]),
        action=known[0],
        type=known[1],
        id=container_id,
        detail=ContainerDetail(
            exec_id=attributes.get("execID", UNSET),
            exit_code=int(exit_code) if exit_code is not None else UNSET,
            signal=_signal_name(attributes.get("signal")),
            network=str(attributes.get("name", ""))[:256] if event.get("Type") == "network" else UNSET,
        ),
        message=f"{known[0]}: {str(attributes.get('name') or actor.get('ID'))[:512]}" if not container_id else "",
        process=Process(command_line=command[:MAX_TEXT]) if command else None,
        truncated=["process.command_line"] if len(command) > MAX_TEXT else [],
    )


def container_of(event: Mapping[str, Any]) -> str:
    """The id of the container it is about, or ""."""
    actor = event.get("Actor") or {}
    if event.get("Type") == "container":
        return str(actor.get("ID", ""))
    if event.get("Type") == "network":
        return str((actor.get("Attributes") or {}).get("container", ""))
    return ""


def changes_container(event: Mapping[str, Any]) -> bool:
    """Whether what is known of the container must be asked for again."""
    return event.get("Type") == "container" and event.get("Action") in _CHANGES


def is_removal(event: Mapping[str, Any]) -> bool:
    return event.get("Type") == "container" and event.get("Action") == "destroy"


def born(event: Mapping[str, Any]) -> Container | None:
    """What the event of a container's creation says of it: its attributes are name, image and all labels."""
    if event.get("Type") != "container" or event.get("Action") != "create":
        return None
    labels = dict(event["Actor"]["Attributes"])
    return container(container_of(event), str(labels.pop("name")), str(labels.pop("image")), labels)


def container(container_id: str, name: str, image: str, labels: Mapping[str, Any]) -> Container:
    base, tag = image_name(image)
    return Container(
        id=container_id,
        name=name[:MAX_LABEL_TEXT],
        runtime="docker",
        image=Image(name=base, tag=[tag] if tag else UNSET),
        labels=_some(labels) or UNSET,
    )


def _some(labels: Mapping[str, Any]) -> dict[str, str]:
    """As many labels as an event may carry: our own first, then by name. A value is cut; a key never, it would be
    another key."""
    kept: dict[str, str] = {}
    room = MAX_LABELS_TEXT
    for key in sorted(labels, key=lambda key: (not key.startswith("tocsin."), key)):
        value = str(labels[key])[:MAX_LABEL_TEXT]
        room -= len(key) + len(value)
        if len(key) > MAX_LABEL_TEXT or room < 0:
            room += len(key) + len(value)
        elif len(kept) < MAX_LABELS:
            kept[key] = value
    return kept


def image_name(reference: str) -> tuple[str, str]:
    """(name, tag) of what the user wrote: registry:5000/team/app:1.2@sha256:..."""
    head, slash, last = reference.partition("@")[0].rpartition("/")
    base, _, tag = last.partition(":")
    return head + slash + base, tag


def _action(event: Mapping[str, Any]) -> tuple[str, str]:
    """Docker writes "exec_start: sh -c id"; the command is its words joined by spaces."""
    action, _, rest = str(event.get("Action", "")).partition(": ")
    return (action, rest) if action.startswith("exec_") else (action, "")


def _signal_name(number: object) -> str | UnsetType:
    if number is None:
        return UNSET
    try:
        return signal.Signals(int(str(number))).name
    except ValueError:
        return str(number)[:16]
