"""The `tests:` of a rule file: partial events as people write them -> RuleTests. `testing` runs them."""

from __future__ import annotations

from typing import Any

from correlator import sample
from correlator.ruleset import LogSource, RuleTest
from tocsin.errors import ConfigError, Problem
from tocsin.strict_yaml import Mapping, Sequence

_TEST_KEYS = frozenset({"name", "expect", "alerts", "given", "events"})


def read(entries: Any, file: str, logsource: LogSource) -> tuple[RuleTest, ...]:
    """The tests, their events built. Raises ConfigError with every problem found."""
    problems: list[Problem] = []
    lines = getattr(entries, "lines", [])
    tests = [_test(entry, line, file, logsource, problems) for entry, line in zip(entries, lines, strict=True)]
    if problems:
        raise ConfigError(problems)
    return tuple(test for test in tests if test is not None)


def _test(entry: Any, line: int, file: str, logsource: LogSource, problems: list[Problem]) -> RuleTest | None:
    if not isinstance(entry, Mapping):
        problems.append(Problem(file, line, "a test must be a mapping with name, expect (or alerts) and events"))
        return None
    before = len(problems)
    for key in entry:
        if key not in _TEST_KEYS:
            problems.append(
                Problem(file, entry.lines[key], f"unknown key {key!r}; a test has {', '.join(sorted(_TEST_KEYS))}")
            )
    fires, alerts, given = entry.get("expect"), entry.get("alerts"), entry.get("given", {})
    if (fires is None) == (alerts is None) or not isinstance(fires, bool | None) or not isinstance(alerts, int | None):
        problems.append(Problem(file, line, "a test has either expect: true or false, or alerts: a number"))
    if not isinstance(given, Mapping) and given != {}:
        problems.append(Problem(file, entry.lines["given"], "given must be a partial event"))
        return None
    events = entry.get("events")
    if not isinstance(events, Sequence) or not events or not all(isinstance(x, Mapping) for x in events):
        problems.append(Problem(file, entry.lines.get("events", line), "events must be a list of partial events"))
        return None
    built = []
    for index, (partial, at) in enumerate(zip(events, events.lines, strict=True)):
        try:
            built.append(sample.event([given, partial], index, logsource))
        except ValueError as e:
            problems.append(Problem(file, at, str(e)))
    if len(problems) > before:
        return None
    return RuleTest(str(entry.get("name", f"line {line}")), line, tuple(built), bool(fires or alerts), alerts)
