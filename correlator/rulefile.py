"""One Sigma file -> drafts of its rules. Owns what one document may say; links between rules are `sigma`'s."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError, SigmaLevelError
from sigma.rule import SigmaRule

from correlator import fields, ruletests
from correlator.conditions import ConditionReader, settled
from correlator.ruleset import SEVERITY, LogSource, Rule, RuleTest, Window
from correlator.tree import Node
from ecs_mappings.taxonomy.sigma import taxonomy
from tocsin import strict_yaml
from tocsin.errors import ConfigError, Problem
from tocsin.strict_yaml import Mapping, Sequence

DEFAULT_GROUP_BY = ("container.id",)
MAX_COUNT = 10_000
"""Highest threshold of a correlation: what one group may hold in memory."""

_KEYS = frozenset(
    "title id name taxonomy related status description license references tags author date modified fields"
    " falsepositives level scope logsource detection correlation filter tests exclude group-by".split()
)
_CORRELATION_KEYS = frozenset({"type", "rules", "group-by", "timespan", "condition", "generate"})
_KEY_OF_ERROR = {
    "identifier": "id",
    "tag": "tags",
    "correlationrule": "correlation",
    "correlationtype": "correlation",
    "correlationcondition": "correlation",
    "timespan": "correlation",
    "value": "tags",
}
"""Of pySigma's error classes that are not named after the key they are about."""


@dataclass
class Draft:
    """A rule whose references are not resolved yet."""

    rule: Rule
    document: Mapping
    excludes_egress: bool

    def problem(self, key: str, text: str) -> Problem:
        return Problem(self.rule.file, self.document.lines.get(key, self.document.line), text)

    def tests(self, logsource: LogSource) -> tuple[RuleTest, ...]:
        """The rule's own tests, their events built. Raises ConfigError."""
        return ruletests.read(self.document.get("tests", []), self.rule.file, logsource)


@dataclass(frozen=True)
class Filter:
    """A Sigma filter: the rules it names must also fulfil `tree`, which says what is not an exception."""

    file: str
    line: int
    rules: tuple[str, ...] | None
    """By name or id; None means every rule of the logsource."""
    logsource: LogSource
    tree: Node


@dataclass
class RuleFile:
    drafts: list[Draft] = field(default_factory=list)
    filters: list[Filter] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def read(file: Path) -> RuleFile:
    """The rules of one file. Raises ConfigError with every problem found in it."""
    documents = strict_yaml.load(file)
    reader = _Reader(file)
    for document in documents:
        if isinstance(document, Mapping):
            reader.document(document, alone=len(documents) == 1)
        else:
            reader.problems.append(Problem(str(file), 1, "every document must be a mapping: a Sigma rule"))
    mains = [draft for draft in reader.drafts if draft.rule.name == file.stem]
    if not reader.problems and len(mains) != 1 and not (reader.filters and not reader.drafts):
        text = f"must hold one rule that alerts, and beside it only base rules with a name; it holds {len(mains)}"
        reader.problems.append(Problem(str(file), 0, text))
    if reader.problems:
        raise ConfigError(reader.problems)
    return RuleFile(reader.drafts, reader.filters, reader.warnings)


class _Reader:
    def __init__(self, file: Path) -> None:
        self._file = str(file)
        self._stem = file.stem
        self.drafts: list[Draft] = []
        self.filters: list[Filter] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def document(self, document: Mapping, alone: bool) -> None:
        before = len(self.problems)
        if "filter" in document:
            self._check_keys(document, "filter")
            self._filter(document)
            return
        if "correlation" in document:
            self._check_keys(document, "correlation")
            rule = self._correlation(document)
        elif "detection" in document:
            self._check_keys(document, "detection")
            if not alone and not isinstance(document.get("name"), str):
                self._problem(document, "name", "a rule that a correlation counts needs a name")
                return
            rule = self._event_rule(document, is_main=alone)
        else:
            self._problem(document, "", "is no Sigma rule: it has no detection, correlation or filter")
            return
        if rule is not None and len(self.problems) == before:
            self.drafts.append(Draft(rule, document, "exclude" in document))

    def _problem(self, mapping: Mapping, key: str, text: str) -> None:
        self.problems.append(Problem(self._file, mapping.lines.get(key, mapping.line), text))

    def _check_keys(self, document: Mapping, kind: str) -> None:
        ecs = document.get("taxonomy") == "ecs"
        for key in document:
            if key not in _KEYS:
                problems = self.problems if ecs else self.warnings
                close = get_close_matches(key, _KEYS, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                problems.append(Problem(self._file, document.lines[key], f"the key {key!r} means nothing here{hint}"))
        if len({"detection", "correlation", "filter"}.intersection(document)) > 1:
            self._problem(document, kind, "a document is one of detection, correlation and filter")
        if document.get("exclude", "egress") != "egress":
            self._problem(document, "exclude", "can only be: egress (the allow-list in egress.yml)")

    def _event_rule(self, document: Mapping, is_main: bool) -> Rule | None:
        ecs = document.get("taxonomy") == "ecs"
        name = self._stem if is_main else str(document["name"])
        self._check_taxonomy(document)
        self._check_required(document, needs_level=is_main)
        if is_main:
            self._check_tests(document, needed=ecs)
        logsource = self._logsource(document)
        detection, tree = document["detection"], None
        if isinstance(detection, Mapping):
            tree = ConditionReader(self._file, ecs, self.problems).tree(detection)
        else:
            self._problem(document, "detection", "must be a mapping of selections and a condition")
        if tree is None or logsource is None or not self._sigma_agrees(SigmaRule, document):
            return None
        if (verdict := settled(tree)) is not None:
            text = "matches every event it is asked about" if verdict else "can never match"
            self.warnings.append(Problem(self._file, document.lines["detection"], f"this rule {text}"))
        return self._rule(document, name, "event", logsource=logsource, tree=tree, alerts=is_main)

    def _correlation(self, document: Mapping) -> Rule | None:
        self._check_taxonomy(document)
        self._check_required(document, needs_level=True)
        self._check_tests(document, needed=document.get("taxonomy") == "ecs")
        block = document["correlation"]
        if not isinstance(block, Mapping):
            self._problem(document, "correlation", "must be a mapping")
            return None
        for key in block:
            if key not in _CORRELATION_KEYS:
                self._problem(block, key, f"correlation.{key} is not supported")
        if block.get("generate"):
            self._problem(
                block, "generate", "is not supported: put the base rule into a file of its own, it alerts then"
            )
        parsed = self._parsed(SigmaCorrelationRule, document)
        if parsed is None:
            return None
        window = self._window(parsed, block, document)
        if window is None:
            return None
        return self._rule(document, self._stem, "correlation", window=window)

    def _filter(self, document: Mapping) -> None:
        self._check_taxonomy(document)
        self._check_required(document, needs_level=False)
        logsource = self._logsource(document)
        block = document["filter"]
        if not isinstance(block, Mapping) or "rules" not in block:
            self._problem(document, "filter", "must be a mapping of rules, selections and a condition")
            return
        named = [block["rules"]] if isinstance(block["rules"], str) else list(block["rules"] or ())
        if not named or not all(isinstance(x, str) for x in named):
            self._problem(block, "rules", "must name rules, or be: any")
        selections = Mapping(block.line)
        selections.update({key: value for key, value in block.items() if key != "rules"})
        selections.lines = block.lines
        ecs = document.get("taxonomy") == "ecs"
        tree = ConditionReader(self._file, ecs, self.problems).tree(selections)
        if tree is not None and logsource is not None:
            rules = None if named == ["any"] else tuple(named)
            self.filters.append(Filter(self._file, block.lines["rules"], rules, logsource, tree))

    def _window(self, parsed: SigmaCorrelationRule, block: Mapping, document: Mapping) -> Window | None:
        kind = parsed.type.name.lower()
        if kind not in ("event_count", "value_count"):
            self._problem(block, "type", f"{kind} is not supported; event_count and value_count are")
            return None
        condition = parsed.condition
        place = block["condition"]
        op, count, name = (
            getattr(condition, "op", None),
            getattr(condition, "count", 0),
            getattr(condition, "fieldref", None),
        )
        operator = op.name.lower() if op is not None else ""
        if operator not in ("gt", "gte", "eq"):
            self._problem(block, "condition", "an upper bound holds from the first event on; use gt, gte or eq")
            return None
        if not 0 < count <= MAX_COUNT:
            self._problem(block, "condition", f"the count must lie between 1 and {MAX_COUNT}")
            return None
        counted = None
        if kind == "value_count":
            if not isinstance(name, str):
                self._problem(block, "condition", "value_count needs one condition.field")
                return None
            counted = self._field(document, name, place.lines["field"])
            if counted is None:
                return None
        return Window(
            type=cast(Literal["event_count", "value_count"], kind),
            bases=tuple(rule.reference for rule in parsed.rules or ()),
            span_s=parsed.timespan.seconds,
            op=cast(Literal["gt", "gte", "eq"], operator),
            count=count,
            field=counted,
        )

    def _rule(self, document: Mapping, name: str, kind: Literal["event", "correlation"], **more: Any) -> Rule | None:
        group_by = self._group_by(document)
        if group_by is None:
            return None
        return Rule(
            name=name,
            uuid=str(document.get("id", "")),
            title=" ".join(str(document.get("title", "")).split()),
            level=str(document.get("level", "informational")),
            kind=kind,
            file=self._file,
            line=document.line,
            group_by=group_by,
            description=str(document.get("description", "")).strip(),
            status=str(document.get("status", "")),
            author=str(document.get("author", "")),
            license=str(document.get("license", "")),
            date=str(document.get("modified", document.get("date", ""))),
            references=tuple(document.get("references", ())),
            falsepositives=tuple(document.get("falsepositives", ())),
            tags=tuple(document.get("tags", ())),
            **more,
        )

    def _group_by(self, document: Mapping) -> tuple[fields.Field, ...] | None:
        """A correlation's group-by, or the one a plain rule may give to fold its repeats by."""
        place = document.get("correlation", document)
        if "group-by" not in place:
            default = () if "correlation" in document else DEFAULT_GROUP_BY
            return tuple(x for name in default if (x := fields.find(name)))
        names = place["group-by"] if isinstance(place["group-by"], list) else [place["group-by"]]
        line = place.lines["group-by"]
        found = [self._field(document, str(name), line) for name in names]
        return None if None in found else tuple(x for x in found if x is not None)

    def _field(self, document: Mapping, name: str, line: int) -> fields.Field | None:
        ecs = document.get("taxonomy") == "ecs"
        found = ConditionReader(self._file, ecs, self.problems).field(name, line)
        if isinstance(found, fields.Field) and not found.many:
            return found
        if found is not None:
            self.problems.append(Problem(self._file, line, f"{name} has no single value to group or count by"))
        return None

    def _logsource(self, document: Mapping) -> LogSource | None:
        source = document.get("logsource")
        if not isinstance(source, Mapping):
            self._problem(document, "logsource", "must be a mapping with a category, or product tocsin and a service")
            return None
        if source.get("product") == "tocsin" and isinstance(source.get("service"), str):
            return LogSource(f"tocsin.{source['service']}", None)
        if source.get("product", "linux") != "linux":
            self._problem(source, "product", f"events of the product {source['product']!r} are not seen here")
            return None
        known = taxonomy().logsources
        category = str(source.get("category"))
        if category not in known:
            text = f"the category {category!r} is not seen here; known: {', '.join(sorted(known))}"
            self._problem(source, "category", text)
            return None
        return LogSource(*known[category])

    def _check_taxonomy(self, document: Mapping) -> None:
        if document.get("taxonomy", "sigma") not in ("sigma", "ecs"):
            self._problem(document, "taxonomy", "must be ecs, or sigma (SigmaHQ's names; the default)")

    def _check_required(self, document: Mapping, needs_level: bool) -> None:
        for key in ("title", "id", *(("level",) if needs_level else ())):
            if not isinstance(document.get(key), str) or not document[key].strip():
                self._problem(document, key, f"the rule has no {key}")
        level = document.get("level")
        if isinstance(level, str) and level not in SEVERITY:
            self._problem(document, "level", f"the level {level!r} is none of {', '.join(SEVERITY)}")

    def _check_tests(self, document: Mapping, needed: bool) -> None:
        tests = document.get("tests")
        if isinstance(tests, Sequence) and tests:
            expected = {bool(x.get("expect", x.get("alerts", 0))) for x in tests if isinstance(x, Mapping)}
            if needed and len(expected) < 2:
                self._problem(document, "tests", "needs at least one test that fires and one that stays silent")
        elif tests is not None:
            self._problem(document, "tests", "must be a list of tests")
        else:
            problems = self.problems if needed else self.warnings
            problems.append(Problem(self._file, document.line, "the rule has no tests"))

    def _sigma_agrees(self, kind: type[SigmaRule], document: Mapping) -> bool:
        return self._parsed(kind, document) is not None

    def _parsed(self, kind: Any, document: Mapping) -> Any:
        """pySigma's own reading of the document, for what it checks; None with a problem when it has one."""
        before = len(self.problems)
        try:
            parsed = kind.from_dict(_plain(document), collect_errors=True)
            errors = list(parsed.errors)
        except (SigmaError, ValueError, TypeError, AttributeError, LookupError) as e:
            parsed, errors = None, [e]
        for error in errors:
            if isinstance(error, SigmaLevelError):
                continue  # told already, with the levels there are
            subject = type(error).__name__.removeprefix("Sigma").removesuffix("Error").lower()
            self._problem(document, _KEY_OF_ERROR.get(subject, subject), str(error))
        return parsed if len(self.problems) == before else None


def _plain(value: Any) -> Any:
    """Without line numbers: pySigma tells exact types apart."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(x) for x in value] if isinstance(value, list) else value
