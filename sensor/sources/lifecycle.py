"""Docker's event messages as facts: which of them become events, and under which name. Owns the table.

Docker puts a container's labels, which the author of its image writes too, among the attributes of its messages. Its
own `name` and `image` replace labels of that name (a container made without an image has its label's until it is
inspected); labels named `exitCode`, `execID` or `signal` replace Docker's own. So dockerd 20.10 does it. Hence these
are read only where Docker sends them, in the form it sends them, and not of a container that has such a label.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

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

_DETAILS = {
    "die": ("exitCode",),
    "kill": ("signal",),
    "exec_start": ("execID",),
    "exec_die": ("execID", "exitCode"),
}
"""What Docker itself says besides name and image, by action."""
_FIELDS = {
    "exitCode": "tocsin.container.exit_code",
    "execID": "tocsin.container.exec_id",
    "signal": "tocsin.container.signal",
}
_MIXED = frozenset(_FIELDS)
_EXEC_ID = re.compile("[0-9a-f]{64}")
_SMALL_NUMBER = re.compile("[0-9]{1,3}")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

_CHANGES = {"create", "start", "rename", "update"}
MAX_TEXT = 8192
MAX_LABELS, MAX_LABEL_TEXT = 64, 256
MAX_LABELS_TEXT = 8192
"""All labels come with every event of the container."""


def fact_of(event: Mapping[str, Any], mixed: Collection[str] = ()) -> LifecycleFact | None:
    """None for what becomes no event. `mixed` is what mixed_in() gave for the container. A detail that is not to be
    believed is left out and named in `truncated`. Raises ValueError, TypeError or AttributeError for what Docker never
    sends."""
    action, command = _action(event)
    known = ACTIONS.get((str(event.get("Type")), action))
    if known is None:
        return None
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    is_network = event.get("Type") == "network"
    network = _clean(attributes.get("name", ""), MAX_LABEL_TEXT) if is_network else UNSET
    detail, odd = _detail(attributes, _DETAILS.get(action, ()), mixed)
    container_id = container_of(event)
    return LifecycleFact(
        time_ns=int(event["timeNano"]),
        action=known[0],
        type=known[1],
        id=container_id,
        detail=msgspec.structs.replace(detail, network=network),
        message="" if container_id else f"{known[0]}: {network or _clean(actor.get('ID', ''), 512)}",
        process=Process(command_line=_clean(command, MAX_TEXT)) if command else None,
        truncated=[*odd, "process.command_line"] if len(command) > MAX_TEXT else odd,
    )


def mixed_in(labels: Collection[str]) -> frozenset[str]:
    """Which of Docker's own attributes these labels of a container replace in all messages about it."""
    return _MIXED.intersection(labels)


def _detail(
    attributes: Mapping[str, Any], sent: Collection[str], mixed: Collection[str]
) -> tuple[ContainerDetail, list[str]]:
    """And the fields left out because what is there is not Docker's."""
    there = {key: str(attributes[key]) for key in sent if key in attributes and key not in mixed}
    exec_id, code, number = there.get("execID", ""), there.get("exitCode", ""), there.get("signal", "")
    detail = ContainerDetail(
        exec_id=exec_id if _EXEC_ID.fullmatch(exec_id) else UNSET,
        exit_code=int(code) if _SMALL_NUMBER.fullmatch(code) and int(code) < 256 else UNSET,
        signal=_signal_name(int(number)) if _SMALL_NUMBER.fullmatch(number) else UNSET,
    )
    read = {"execID": detail.exec_id, "exitCode": detail.exit_code, "signal": detail.signal}
    return detail, [_FIELDS[key] for key in sent if key in attributes and read[key] is UNSET]


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
    base, tag = image_name(_clean(image, MAX_TEXT))
    return Container(
        id=container_id,
        name=_clean(name, MAX_LABEL_TEXT),
        runtime="docker",
        image=Image(name=base, tag=[tag] if tag else UNSET),
        labels=_some(labels) or UNSET,
    )


def _some(labels: Mapping[str, Any]) -> dict[str, str]:
    """As many labels as an event may carry: our own first, then by name. A value is cut; a key never, it would be
    another key."""
    kept: dict[str, str] = {}
    room = MAX_LABELS_TEXT
    for raw in sorted(labels, key=lambda key: (not key.startswith("tocsin."), key)):
        key, value = _clean(raw, MAX_LABEL_TEXT + 1), _clean(labels[raw], MAX_LABEL_TEXT)
        if key != raw and key in labels:
            continue
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


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _clean(text: object, most: int) -> str:
    """At most `most` characters of it. NUL and lone surrogates, which no store takes, become U+FFFD: without them it
    could be another name."""
    return _NO_TEXT.sub("\ufffd", str(text)[:most])
