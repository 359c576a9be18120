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
                "A process asked for a connection. `event.outcome` is failure when it was refused, with the errno in "
                "`error.code`. UDP has no connection: the call only sets the peer.",
            ),
        },
        "Connections, seen in the kernel.",
    ),
    "tocsin.container": Dataset(
        ("host",),
        {
            "created": Action(("creation",), "A container was made."),
            "started": Action(("start",), "Its first process began."),
            "exec_started": Action(("start",), "`docker exec` began a process in it."),
            "exec_died": Action(("end",), "A `docker exec` ended."),
            "paused": Action(("change",), "It was paused."),
            "unpaused": Action(("change",), "It goes on."),
            "oom": Action(("info",), "The kernel killed a process of it for memory."),
            "killed": Action(("change",), "It was sent a signal."),
            "died": Action(("end",), "Its first process ended."),
            "destroyed": Action(("deletion",), "It was removed."),
            "network_connected": Action(("change",), "It joined a network."),
            "network_disconnected": Action(("change",), "It left a network."),
        },
        "What Docker says of containers.",
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
