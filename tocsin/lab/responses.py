"""The shipped playbooks, made fit for a lab: they answer only for its own containers, and tell only its receiver."""

from __future__ import annotations

from typing import Any

import yaml

from playbooks.schema import SHIPPED
from tocsin.lab import runs
from tocsin.lab.receiver import Receiver

URL_SECRET, KEY_SECRET = "LAB_RECEIVER", "LAB_RECEIVER_KEY"


def scoped(run: str, *, undo_after: str | None = None) -> dict[str, str]:
    """File name -> text of every shipped playbook, for the containers of one lab run alone.

    A lab has many targets, so none is too many. `notify` is switched on and tells the receiver, signed. `undo_after`
    replaces the time after which steps are undone.
    """
    files = {path.name: yaml.safe_load(path.read_text()) for path in sorted(SHIPPED.glob("*.yml"))}
    return {
        name: yaml.safe_dump(_scoped(document, run, undo_after), sort_keys=False) for name, document in files.items()
    }


def secrets(receiver: Receiver) -> dict[str, str]:
    """The environment in which the playbooks find the lab's receiver."""
    return {f"TOCSIN_SECRET_{URL_SECRET}": receiver.url, f"TOCSIN_SECRET_{KEY_SECRET}": receiver.secret}


def _scoped(document: dict[str, Any], run: str, undo_after: str | None) -> dict[str, Any]:
    ours = {"field": f"container.labels.{runs.LABEL}", "equals": run}
    match = {**document["match"], "where": [*document["match"].get("where", []), ours]}
    # There is no Slack in a lab.
    steps = [_step(step, undo_after) for step in document["steps"] if step["uses"] != "slack.send"]
    kept = {key: value for key, value in document.items() if key != "limits"}
    return {**kept, "mode": "enforce", "match": match, "steps": steps}


def _step(step: dict[str, Any], undo_after: str | None) -> dict[str, Any]:
    if step["uses"] == "webhook.post":
        told = {"url": f"${{secret:{URL_SECRET}}}", "hmac": f"${{secret:{KEY_SECRET}}}"}
        return {**step, "with": {**step["with"], **told}}
    return {**step, "undo": {"after": undo_after}} if undo_after is not None and "undo" in step else step
