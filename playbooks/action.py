"""The seam between playbooks and actions: what an action is, and how one is found by its file. Owns no action.

`uses: docker.pause` names the file playbooks/actions/docker_pause.py: the file name is the registry. The file defines a
class with the shape of `Action` and, at its end, `action = TheClass()`. Its docstring is what `tocsin actions` shows.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

import playbooks.actions
from ecs_mappings.event import Event
from tocsin.errors import ConfigError, Problem

if TYPE_CHECKING:
    from pydantic import BaseModel

    from playbooks.daemon import ContainerState, Daemon


class Outcome(StrEnum):
    """How a step ended."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    """Nothing to do: already so, or what it would act on is gone."""
    SKIPPED = "skipped"
    """`if` said no, nobody approved in time, or dry-run."""
    DENIED = "denied"
    """The guard or a person said no."""
    FAILED = "failed"
    TIMEOUT = "timeout"
    """Nobody knows whether it took effect; an armed undo stays armed."""


class SecretMark:
    """Marks a parameter as one that may hold `${secret:NAME}`; see SecretText."""


SecretText = Annotated[str, SecretMark()]
"""Type of a parameter that may hold `${secret:NAME}`; in any other parameter the loader refuses one.

An action only ever sees the reference, never the value. It passes it on in a Delivery; the sender resolves it.
"""

Secrets = Callable[[str], str]
"""Name of a secret -> its text. Raises ConfigError (names the place, never the value)."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message to a receiver outside. Kept in the outbox until the receiver took it, across restarts.

    `url`, header values and `sign_with` may hold `${secret:NAME}`; it is stored so, and resolved only to send.
    """

    id: str
    """Call.delivery_id: the same each time the same step asks, so a receiver can drop repeats. At least once."""
    sender: str
    """Name of the action that made it: webhook.post, slack.send. Tells the sender the receiver's habits."""
    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    sign_with: str | None = None
    """Key of the HMAC, as a reference."""


@dataclass(frozen=True)
class Plan:
    """What plan() saw."""

    change: bool
    """False: nothing to do, the step ends `unchanged` with this reason."""
    reason: str
    saved: Mapping[str, Any] = field(default_factory=dict)
    """What undo() will need, as JSON values. It is in the ledger, on disk, before act() begins."""


@dataclass(frozen=True)
class Result:
    """How act() or undo() went: CHANGED, UNCHANGED or FAILED."""

    outcome: Outcome
    reason: str
    data: Mapping[str, Any] = field(default_factory=dict)
    """JSON values; later steps see them as `steps.<id>.data.<key>`, and so does the record of the run. Bounded by
    the action; never a secret."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What an action gets beside its parameters."""

    alert: Event
    container_id: str | None
    """64 hexadecimal digits; never None for an action with `needs_container`."""
    seen: ContainerState | None
    """The container as the guard saw it an instant ago; None where it did not look."""
    playbook: str
    run_id: str
    step_id: str
    attempt: int
    """Counts from 1."""
    delivery_id: str
    """hash(run, step): the same in every attempt and after a crash."""
    evidence_dir: Path
    """The run's own directory, made by whoever writes first (parents too, mode 0700)."""
    deadline: float
    """time.monotonic() at which the runner stops waiting. Bound every wait of yours by it."""
    daemon: Daemon
    post: Callable[[Delivery], None]
    """Puts a message into the outbox, in the same commit as the step's outcome. Never blocks."""
    console_url: str | None = None
    """Base of links in messages."""
    saved: Mapping[str, Any] | None = None
    """What the step's first plan saved, when plan() is asked again after a crash or a retry."""
    evidence_limit_bytes: int = 1024 * 1024 * 1024
    """Of all runs' evidence together; beyond it the oldest is removed."""


class Action(Protocol):
    """One thing a playbook can do.

    Each method may raise RetryLater (the step's `retry` decides), any TocsinError (the step failed, its text is the
    reason); any other exception is a failed step with a traceback in the log. Everything in `call.alert` is the
    attacker's. Methods of one step run one after the other, on a thread of their own; steps of several runs at once.
    """

    parameters: ClassVar[type[BaseModel]]
    """Fields a playbook may give under `with`; extra="forbid". Templates are filled in before it is validated."""
    mutates: ClassVar[bool]
    """True: the guard, the kill switch, limits, approval and dry-run apply."""
    undoable: ClassVar[bool]
    needs_container: ClassVar[bool]
    """True: an alert without container.id ends the step `denied`."""

    def plan(self, call: Call, p: Any) -> Plan:
        """Looks, and changes nothing: dry-run stops here. "Already so" and "gone" are Plan(False, ...).

        After a crash it is asked again: then change=False means the effect is there and act() is not repeated.
        """

    def act(self, call: Call, p: Any, plan: Plan) -> Result:
        """Does it. Safe to repeat: after a crash or a retry it may find its own work half done.

        `plan.saved` is then still what the first plan saw.
        """

    def verify(self, call: Call, p: Any, plan: Plan) -> bool:
        """A second look after act() said CHANGED: whether the effect is really there. Only asked if `mutates`."""

    def undo(self, call: Call, p: Any, saved: Mapping[str, Any]) -> Result:
        """The inverse, from what plan() saved; looks itself whether it worked, FAILED if not.

        UNCHANGED if there is nothing to put back (gone, or someone did it before). May run after only part of act()
        happened, or none, and more than once. Never called if not `undoable`.
        """


def names() -> list[str]:
    """All actions there are, as playbooks write them: ["docker.collect", "docker.disconnect", ...]."""
    found = pkgutil.iter_modules(playbooks.actions.__path__)
    return sorted(m.name.replace("_", ".", 1) for m in found if not m.name.startswith("_"))


@cache
def load(name: str) -> Action:
    """The action of that name. ConfigError, naming those that are near, when there is no such file."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise ConfigError([Problem("playbooks/actions", 0, f"there is no action {name!r}; {hint}")])
    module = importlib.import_module(f"playbooks.actions.{name.replace('.', '_')}")
    action: Action = module.action
    return action
