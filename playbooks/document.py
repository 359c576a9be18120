"""A playbook as people write it: the only definition of its fields, types and defaults. Owns only single fields.

Every model refuses unknown fields. What needs more than one field, or other files, is checked in schema.py.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"^([0-9]{1,6})(ms|s|m|h|d)$")
MAX_DURATION_S = 365 * 86400.0


def seconds(text: object) -> float:
    """`15m` as 900.0. ValueError for anything that is not a whole number and one unit: 500ms, 10s, 15m, 1h, 7d."""
    found = _DURATION.match(text) if isinstance(text, str) else None
    if not found:
        raise ValueError(f"must be a duration such as 10s, 15m or 1h, not {text!r}")
    value = int(found[1]) * _UNITS[found[2]]
    if not 0 < value <= MAX_DURATION_S:
        raise ValueError("must be longer than nothing and at most a year")
    return value


Duration = Annotated[
    float, BeforeValidator(seconds, json_schema_input_type=str), Field(json_schema_extra={"pattern": _DURATION.pattern})
]
"""Seconds, written `15m`."""
NAME, STEP_ID, LABEL = r"^[a-z0-9][a-z0-9-]{0,62}$", r"^[a-z][a-z0-9_]{0,40}$", r"^[^=\s]+(=.*)?$"
Name = Annotated[str, Field(pattern=NAME)]
StepId = Annotated[str, Field(pattern=STEP_ID)]
Text = Annotated[StrictStr, Field(min_length=1, max_length=4096)]
Value: TypeAlias = StrictBool | StrictInt | StrictFloat | Annotated[StrictStr, Field(max_length=4096)]


class Mode(StrEnum):
    """How far a playbook may go; ordered. A global ceiling can only lower it."""

    DISABLED = "disabled"
    DRY_RUN = "dry-run"
    """Looks with the live daemon, records what it would change, changes and sends nothing."""
    APPROVE = "approve"
    """Every step that changes something waits for a person."""
    ENFORCE = "enforce"

    def lowered_to(self, ceiling: Mode) -> Mode:
        order = list(Mode)
        return min(self, ceiling, key=order.index)


class Severity(StrEnum):
    """Sigma's levels, ordered."""

    INFORMATIONAL = "informational"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class Where(_Model):
    """One condition: a field and exactly one operator. A field the alert does not have never matches."""

    field: Text
    equals: Value | None = None
    in_: Annotated[list[Value], Field(min_length=1)] | None = Field(None, alias="in")
    not_in: Annotated[list[Value], Field(min_length=1)] | None = Field(None, description="Present, and none of these.")
    contains: Text | None = None
    startswith: Text | None = None
    endswith: Text | None = None
    cidr: Text | Annotated[list[Text], Field(min_length=1)] | None = Field(None, description="An address inside.")
    not_cidr: Text | Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="A valid address outside all of these."
    )
    exists: Literal[True] | None = Field(None, description="Only true: a missing field never makes a match.")
    gt: StrictInt | StrictFloat | None = None
    gte: StrictInt | StrictFloat | None = None
    lt: StrictInt | StrictFloat | None = None
    lte: StrictInt | StrictFloat | None = None

    @property
    def operator(self) -> tuple[str, Any]:
        """The one operator that is set, and its operand."""
        return next((n, v) for n in self.operators() if (v := getattr(self, n)) is not None)

    @classmethod
    def operators(cls) -> list[str]:
        return [n for n in cls.model_fields if n != "field"]

    @model_validator(mode="after")
    def _exactly_one(self) -> Where:
        given = [n for n in self.operators() if getattr(self, n) is not None]
        if len(given) != 1:
            known = ", ".join(n.rstrip("_") for n in self.operators())
            raise ValueError(f"needs exactly one operator out of {known}")
        return self


class Match(_Model):
    """AND between the keys, OR inside `rules` and `severity`, AND between the conditions of `where`."""

    rules: Annotated[list[Text], Field(min_length=1)] | None = Field(None, description="Names or ids of rules.")
    severity: str | Annotated[list[Severity], Field(min_length=1)] | None = Field(
        None, description='">=high", "high", or a list of levels.'
    )
    where: Annotated[list[Where], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Match:
        if self.rules is None and self.severity is None and self.where is None:
            raise ValueError("is empty: it would match every alert; give rules, severity or where")
        return self

    @field_validator("severity")
    @classmethod
    def _known_level(cls, severity: str | list[Severity] | None) -> str | list[Severity] | None:
        if isinstance(severity, str):
            levels(severity)
        return severity


def levels(text: str) -> frozenset[str]:
    """The levels that `>=high` or `high` stands for."""
    found = re.fullmatch(r"(>=|<=|>|<|)\s*([a-z]+)", text)
    order = [s.value for s in Severity]
    if not found or found[2] not in order:
        raise ValueError(f'must be like ">=high" or "high", of {", ".join(order)}; not {text!r}')
    at = order.index(found[2])
    spans = {">=": order[at:], ">": order[at + 1 :], "<=": order[: at + 1], "<": order[:at], "": [found[2]]}
    if not spans[found[1]]:
        raise ValueError(f"{text!r} is no level at all")
    return frozenset(spans[found[1]])


class Protect(_Model):
    """Containers this playbook never touches, beside those nobody touches."""

    labels: list[Annotated[str, Field(pattern=LABEL, max_length=300)]] = []


class Concurrency(_Model):
    """At most one run of this playbook per value of `key`."""

    key: Text
    when_busy: Literal["drop", "queue", "merge"] = Field(
        "drop", description="drop: recorded, not run; queue: runs after; merge: recorded as part of the running one."
    )


class Cooldown(_Model):
    """After a run started, no other run of this playbook for the same `key` until `for` has passed."""

    key: Text
    for_: Duration = Field(alias="for")


class Limits(_Model):
    """Circuit breaker: more than `max_targets` containers within `per`, and every change needs approval."""

    max_targets: Annotated[StrictInt, Field(ge=1, le=10_000)]
    per: Duration


class Retry(_Model):
    """Waits backoff, backoff*factor, ... (at most 5 minutes) between attempts. Only after `failed`, never `timeout`."""

    attempts: Annotated[StrictInt, Field(ge=1, le=100)] = 3
    backoff: Duration = 1.0
    factor: Annotated[float, Field(ge=1, le=10)] = 2.0


class Undo(_Model):
    """Takes the step's effect back after this time, though Tocsin was restarted meanwhile."""

    after: Duration


class Approve(_Model):
    """Waits for a person before it acts."""

    timeout: Duration = 900.0
    on_timeout: Literal["skip", "run", "fail"] = "skip"


class FailureStep(_Model):
    """A step of `on_failure`. Its own failure is recorded and changes nothing."""

    id: StepId | None = Field(None, description="Default: on_failure_1, on_failure_2, ...")
    uses: Text = Field(description="An action, such as docker.pause.")
    with_: dict[str, Any] = Field({}, alias="with", description="The action's parameters; texts may hold templates.")
    if_: Text | None = Field(None, alias="if", description="An expression; the step is skipped unless it holds.")
    retry: Retry | None = None
    timeout: Duration = Field(30.0, description="Per attempt.")


class Step(FailureStep):
    """One action, with what surrounds it."""

    id: StepId
    on_error: Literal["fail", "continue", "skip_rest"] = Field(
        "fail",
        description="When it ends failed, denied or timeout. fail: the run fails and on_failure runs; continue: "
        "go on; skip_rest: end the run here, without failing.",
    )
    undo: Undo | None = None
    approve: Approve | None = None


class Document(_Model):
    """One playbook file."""

    name: Name
    description: Annotated[str, Field(max_length=1000)] = ""
    mode: Mode = Mode.ENFORCE
    match: Match
    protect: Protect = Protect()
    concurrency: Concurrency | None = None
    cooldown: Cooldown | None = None
    limits: Limits | None = None
    steps: Annotated[list[Step], Field(min_length=1, max_length=50)]
    on_failure: Annotated[list[FailureStep], Field(max_length=20)] = []


def json_schema() -> dict[str, Any]:
    """JSON Schema of a playbook file, for editors."""
    schema = Document.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tocsin playbook", **schema}
