"""What the container actions share: one look at the container. No action of its own."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict

from playbooks.action import Call, Outcome, Plan, Result
from playbooks.daemon import ContainerState, Gone

GONE = "the container is gone"
NO_CHANGE = Plan(change=False, reason=GONE)
NOTHING_LEFT = Result(Outcome.UNCHANGED, GONE)


class NoParameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def container_of(call: Call) -> str:
    assert call.container_id is not None, "the runner denies steps that need a container and have none"
    return call.container_id


def look(call: Call) -> ContainerState | None:
    """The container now; None when it is gone."""
    try:
        return call.daemon.inspect(container_of(call))
    except Gone:
        return None


def first_look(call: Call) -> ContainerState | None:
    """For plan(): the guard's look of an instant ago saves a call."""
    return call.seen or look(call)


def run_of(state: ContainerState) -> str:
    """Which run of the container this is: a restart makes it another."""
    return state.started_at.isoformat() if state.started_at else ""


def plain(value: msgspec.Struct) -> Any:
    """As JSON values, for Plan.saved."""
    return msgspec.to_builtins(value)
