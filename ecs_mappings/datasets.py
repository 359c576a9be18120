"""What is written: per dataset its ECS category, and per action its ECS types and when it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ANY = "*"
"""Stands for the actions that are named elsewhere: the file name is their registry."""


@dataclass(frozen=True)
class Action:
    types: tuple[str, ...]
    """Of `event.type`."""
    when: str


@dataclass(frozen=True)
class Dataset:
    category: tuple[str, ...]
    actions: Mapping[str, Action]
    about: str


DATASETS: Mapping[str, Dataset] = {
    "tocsin.process": Dataset(
        ("process",),
        {
            "exec": Action(("start",), "A program began in a process (`execve` succeeded)."),
            "exit": Action(("end",), "A process ended; `process.exit_code` says how."),
        },
        "Processes, seen in the kernel.",
    ),
    "tocsin.network": Dataset(
        ("network",),
        {
            "connect": Action(
                ("connection", "start"),
                "A process asked for a connection, and the call returned. `event.outcome` is failure when it was "
                "refused, with the errno in `error.code`. TCP that goes out without the call (Fast Open, io_uring) is "
                "told of as it goes. UDP has no connection: the call only sets the peer.",
            ),
        },
        "Connections, seen in the kernel.",
    ),
    "tocsin.container": Dataset(
        ("host",),
        {
            "created": Action(("info",), "A container was made."),
            "started": Action(("start",), "Its first process began."),
            "restarted": Action(("change",), "It was stopped and started."),
            "paused": Action(("change",), "It was paused."),
            "unpaused": Action(("change",), "It goes on."),
            "signalled": Action(("change",), "Docker sent it a signal: `tocsin.container.signal`."),
            "stopped": Action(("end",), "Somebody stopped it."),
            "died": Action(("end",), "Its first process ended: `tocsin.container.exit_code`."),
            "oom": Action(("info",), "The kernel killed a process of it for want of memory."),
            "removed": Action(("end",), "It is gone, with what it had written."),
            "renamed": Action(("change",), "It has another name."),
            "updated": Action(("change",), "Its limits were changed."),
            "attached": Action(("info",), "Somebody attached to its streams."),
            "committed": Action(("info",), "An image was made of it."),
            "exported": Action(("info",), "Its file system was copied out whole."),
            "copied_from": Action(("info",), "Files were copied out of it."),
            "copied_to": Action(("change",), "Files were copied into it."),
            "exec_started": Action(("start",), "`docker exec` began a process in it."),
            "exec_ended": Action(("end",), "A `docker exec` ended."),
            "network_connected": Action(("change",), "It joined the network `tocsin.container.network`."),
            "network_disconnected": Action(("change",), "It left that network."),
            "image_pulled": Action(("info",), "An image came from a registry."),
            "image_loaded": Action(("info",), "An image came from an archive of images."),
            "image_imported": Action(("info",), "An image was made of an archive of files."),
            "image_removed": Action(("info",), "An image was removed."),
        },
        "What Docker says of containers and images.",
    ),
    "tocsin.alert": Dataset(
        ("intrusion_detection",),
        {
            "opened": Action(("info",), "A rule fired for the first time for this group. Playbooks start on these."),
            "repeated": Action(("info",), "It fired again; `tocsin.alert.count` counts all firings up to this one."),
        },
        "Judgements: `event.kind` is alert.",
    ),
    "tocsin.response": Dataset(
        ("configuration",),
        {
            ANY: Action(
                ("change", "denied", "info"),
                "One step of a playbook ended; `event.action` is the name of the step's action, as in docker.pause. "
                "For a run that was not started it is the run's state. "
                "The result is in `tocsin.playbook.outcome`, the reason in `event.reason`.",
            ),
            "approval_requested": Action(("info",), "A step waits for a person."),
            "delivered": Action(("info",), "A receiver took a message."),
            "undeliverable": Action(("info",), "A message went to the dead letters."),
        },
        "What playbooks did, would have done, or were kept from doing.",
    ),
    "tocsin.sensor": Dataset(
        ("host",),
        {
            "started": Action(("info",), "A sensor run began."),
            "heartbeat": Action(("info",), "It lives; `tocsin.sensor.*` holds its counters."),
            "events_lost": Action(("info",), "Events were lost: where, how many, between when (`tocsin.loss.*`)."),
        },
        "Tocsin about itself.",
    ),
}
