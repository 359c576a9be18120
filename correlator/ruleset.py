"""What a loaded rule is. Values only: `sigma` makes them, the engine and the command line read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from correlator.fields import Field
from correlator.tree import Node
from ecs_mappings.event import Event
from tocsin.errors import Problem, UsageError

SEVERITY = {"informational": 1, "low": 21, "medium": 47, "high": 73, "critical": 99}
"""Sigma's level -> ECS event.severity."""


@dataclass(frozen=True)
class LogSource:
    """Which events a rule is asked about; `action` None means every action of the dataset."""

    dataset: str
    action: str | None = None


@dataclass(frozen=True)
class RuleTest:
    """One entry of a rule's `tests:`."""

    name: str
    line: int
    events: tuple[Event, ...]
    fires: bool
    alerts: int | None = None
    """How many alerts exactly, repeats not counted; None means at least one where `fires`."""


@dataclass(frozen=True)
class Window:
    """The correlation of a rule: how many events, or distinct values of `field`, within `span_s` of event time."""

    type: Literal["event_count", "value_count"]
    bases: tuple[str, ...]
    """Names of the rules whose matches are counted."""
    span_s: int
    op: Literal["gt", "gte", "eq"]
    count: int
    field: Field | None = None
    """Only of value_count: the field whose distinct values are counted."""


@dataclass(frozen=True)
class Rule:
    """One Sigma rule. `name`, the `rule.id` of alerts, is the stem of its file, or of a base rule its Sigma `name`."""

    name: str
    uuid: str
    title: str
    level: str
    kind: Literal["event", "correlation"]
    file: str
    line: int
    group_by: tuple[Field, ...]
    """Firings with equal values here are one group."""
    description: str = ""
    status: str = ""
    author: str = ""
    license: str = ""
    date: str = ""
    references: tuple[str, ...] = ()
    falsepositives: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    logsource: LogSource | None = None
    """Only of kind event."""
    tree: Node | None = None
    """Only of kind event."""
    window: Window | None = None
    """Only of kind correlation."""
    alerts: bool = True
    """False for a base rule that only feeds a correlation of its file."""
    tests: tuple[RuleTest, ...] = ()


@dataclass(frozen=True)
class RuleSet:
    """Rules by name, in the order of their files. Two rule sets with equal `digest` judge alike."""

    rules: tuple[Rule, ...]
    digest: str
    warnings: tuple[Problem, ...] = ()
    """What does not stop a rule from loading but that its author should know."""
    _by_name: dict[str, Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {rule.name: rule for rule in self.rules})

    def rule(self, name: str) -> Rule:
        """Raises UsageError, with the names there are, for an unknown one."""
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise UsageError(f"there is no rule {name!r}; rules: {known}") from None

    def only(self, name: str) -> RuleSet:
        """The rule and, when it is a correlation, its base rules."""
        rule = self.rule(name)
        bases = rule.window.bases if rule.window else ()
        return RuleSet(tuple(x for x in self.rules if x.name == name or x.name in bases), self.digest)

    @property
    def span_s(self) -> float:
        """The longest window of any rule."""
        return max((rule.window.span_s for rule in self.rules if rule.window), default=0)
