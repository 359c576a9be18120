"""Says in words what a rule looks at, and of one event why it matches or does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from correlator.alerts import printable
from correlator.fields import as_text
from correlator.ruleset import Rule, RuleSet, Window
from correlator.tree import And, Const, Match, Named, Node, Not, Or, Same, fields_of
from correlator.verdict import Verdict, verdict
from ecs_mappings.event import Event

MAX_SHOWN = 200


@dataclass(frozen=True)
class Step:
    """One line of the explanation; `verdict` and `actual` only with an event (None: its field was cut)."""

    depth: int
    text: str
    verdict: Verdict = None
    actual: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    rule: str
    title: str
    level: str
    file: str
    line: int
    description: str
    asked_about: str
    fields: list[str]
    group_by: list[str]
    tests: list[str]
    references: list[str]
    falsepositives: list[str]
    steps: list[Step]
    matches: Verdict = None
    """Only with an event."""
    judged: bool = False
    """An event was given."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal: plain text, one line each, without control characters."""
        out = [f"{self.title} [{self.level}]  {self.file}:{self.line}", f"asked about: {self.asked_about}"]
        for step in self.steps:
            sign = {True: "yes", False: "no ", None: "cut"}[step.verdict] + "  " if self.judged else ""
            actual = f"   <- {', '.join(step.actual) or 'missing'}" if self.judged and step.text[:1] != "[" else ""
            out.append(f"{sign}{'  ' * step.depth}{step.text}{actual}")
        if self.judged:
            out.append(
                {True: "matches", False: "does not match", None: "cannot be decided: a field was cut"}[self.matches]
            )
        else:
            out += [f"groups by: {', '.join(self.group_by) or 'nothing'}", *(f"test: {x}" for x in self.tests)]
        return [printable(line, 2000) for line in out]


def explain(ruleset: RuleSet, name: str, event: Event | None = None) -> Explanation:
    """Raises UsageError for an unknown rule. An event is held against the conditions whatever its dataset is."""
    rule = ruleset.rule(name)
    cut = event.tocsin.truncated if event and event.tocsin and event.tocsin.truncated else []
    trees = [(rule.name, rule.tree)] if rule.tree else []
    if rule.window:
        trees = [(x, tree) for x in rule.window.bases if (tree := ruleset.rule(x).tree)]
    steps: list[Step] = []
    for base, tree in trees:
        if rule.window:
            steps.append(_step(0, f"[{base}]", tree, event, cut))
        steps += _steps(tree, 1 if rule.window else 0, event, cut)
    verdicts = [verdict(tree, event, cut) for _, tree in trees] if event else []
    return Explanation(
        rule=rule.name,
        title=rule.title,
        level=rule.level,
        file=rule.file,
        line=rule.line,
        description=rule.description,
        asked_about=_asked_about(rule, ruleset),
        fields=sorted({x.path for _, tree in trees for x in fields_of(tree)}),
        group_by=[x.path for x in rule.group_by],
        tests=[f"{test.name}: {'fires' if test.fires else 'silent'}" for test in rule.tests],
        references=list(rule.references),
        falsepositives=list(rule.falsepositives),
        steps=steps,
        matches=True if True in verdicts else None if None in verdicts else False,
        judged=event is not None,
    )


def _steps(node: Node, depth: int, event: Event | None, cut: list[str]) -> Iterator[Step]:
    match node:
        case Match(field=looked_at, test=test):
            yield _step(
                depth, f"{looked_at.path} {test.words()}", node, event, cut, looked_at.values(event) if event else ()
            )
        case Same(field=looked_at, op=op, other=other):
            actual = [*looked_at.values(event), *other.values(event)] if event else ()
            yield _step(depth, f"{looked_at.path} {op} {other.path}", node, event, cut, actual)
        case Const(why=why):
            yield _step(depth, f"[decided at load: {why}]", node, event, cut)
        case Named(name=name, item=item):
            yield _step(depth, f"[{name}]", node, event, cut)
            yield from _steps(item, depth + 1, event, cut)
        case Not(item=item):
            yield _step(depth, "[not]", node, event, cut)
            yield from _steps(item, depth + 1, event, cut)
        case And(items=items) | Or(items=items):
            yield _step(depth, "[all of]" if isinstance(node, And) else "[any of]", node, event, cut)
            for item in items:
                yield from _steps(item, depth + 1, event, cut)


def _step(depth: int, text: str, node: Node, event: Event | None, cut: list[str], actual: Any = ()) -> Step:
    shown = [printable(repr(as_text(x)), MAX_SHOWN) for x in actual]
    return Step(depth, text, verdict(node, event, cut) if event else None, shown)


def _asked_about(rule: Rule, ruleset: RuleSet) -> str:
    if rule.window:
        return f"{_window(rule.window)} of {', '.join(rule.window.bases)}"
    assert rule.logsource
    return f"{rule.logsource.dataset}, {rule.logsource.action or 'every action'}"


def _window(window: Window) -> str:
    what = f"distinct values of {window.field.path}" if window.field else "events"
    bound = {"gte": "at least", "gt": "more than", "eq": "exactly"}[window.op]
    return f"{bound} {window.count} {what} within {window.span_s} s"
