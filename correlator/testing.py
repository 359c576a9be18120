"""Runs the tests that rules carry in their own files; `tocsin rules test` and pytest do the same through this."""

from __future__ import annotations

from dataclasses import dataclass

from correlator.engine import Engine
from correlator.ruleset import Rule, RuleSet, RuleTest
from ecs_mappings.event import encode


@dataclass(frozen=True)
class TestResult:
    """`detail` says what went otherwise than expected; empty when passed."""

    rule: str
    test: str
    file: str
    line: int
    passed: bool
    detail: str = ""


def run(ruleset: RuleSet) -> list[TestResult]:
    """Runs every test of every rule, each in an engine of its own that holds that rule alone."""
    return [run_one(ruleset, rule, test) for rule in ruleset.rules for test in rule.tests]


def run_one(ruleset: RuleSet, rule: Rule, test: RuleTest) -> TestResult:
    engine = Engine(ruleset.only(rule.name), clock_ns=lambda: 0)
    alerts = engine.feed(0, [encode(event) for event in test.events])
    opened = sum(alert.event.action == "opened" for alert in alerts)
    detail = ""
    if engine.counts["failed"] or engine.counts["malformed"]:
        detail = "an event could not be judged"
    elif test.alerts is not None and opened != test.alerts:
        detail = f"{opened} alerts instead of {test.alerts}"
    elif test.alerts is None and bool(opened) != test.fires:
        detail = "raised an alert, but should stay silent" if opened else "stayed silent, but should raise an alert"
    return TestResult(rule.name, test.name, rule.file, test.line, not detail, detail)
