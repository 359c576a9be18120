"""Loads directories of Sigma files into a RuleSet. Owns files and what holds between them; one rule is `rulefile`'s.

One file is one rule that alerts, named by the file's stem; a correlation's file may also hold its base rules.
All problems of all files are raised in one ConfigError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from correlator import egress as egress_file
from correlator.rulefile import Draft, Filter, read
from correlator.ruleset import Rule, RuleSet
from correlator.tree import And, Named, Node, Not
from tocsin.errors import ConfigError, Problem

SHIPPED = Path(__file__).parent / "rules"
"""Directory of the rules that come with Tocsin."""

SHIPPED_EGRESS = Path(__file__).parent / "egress.yml"
"""The egress allow-list that comes with Tocsin."""

_DIGEST_OF = "1"
"""Raised when the evaluator judges the same rules differently: kept state of an older one is then not used."""


def load(directories: Sequence[Path], egress: Path | None = None) -> RuleSet:
    """The rules of all *.yml and *.yaml files below the directories, with `egress` or the shipped allow-list.

    A path that is a file is read itself, whatever its ending; one that does not exist is a warning of the result.
    Raises ConfigError with every problem found.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    allowed: Node | None = None
    digest = hashlib.sha256(_DIGEST_OF.encode())
    egress = egress or SHIPPED_EGRESS
    try:
        allowed = egress_file.load(egress)
        digest.update(egress.read_bytes())
    except ConfigError as e:
        problems += e.problems
    drafts: list[Draft] = []
    filters: list[Filter] = []
    for file in _files(directories, warnings):
        try:
            found = read(file)
        except ConfigError as e:
            problems += e.problems
            continue
        digest.update(str(file.stem).encode() + b"\0" + file.read_bytes())
        drafts += found.drafts
        filters += found.filters
        warnings += found.warnings
    rules = _filtered(_linked(drafts, allowed, problems), filters, problems)
    if problems:
        raise ConfigError(problems)
    return RuleSet(tuple(rules), digest.hexdigest(), tuple(warnings))


def _files(directories: Sequence[Path], warnings: list[Problem]) -> Iterator[Path]:
    for directory in directories:
        if directory.is_file():
            yield directory
            continue
        if not directory.is_dir():
            warnings.append(Problem(str(directory), 0, "there is no such directory: no rules from here"))
            continue
        yield from sorted(p for p in directory.rglob("*") if p.suffix in (".yml", ".yaml") and p.is_file())


def _linked(drafts: list[Draft], allowed: Node | None, problems: list[Problem]) -> list[Rule]:
    """The rules, with references between them resolved and checked."""
    by_reference: dict[str, Draft] = {}
    for draft in drafts:
        for reference, what in ((draft.rule.name, "name"), (draft.rule.uuid, "id")):
            first = by_reference.setdefault(reference, draft)
            if first is not draft:
                place = f"{first.rule.file}:{first.rule.line}"
                problems.append(draft.problem(what, f"the {what} {reference!r} is taken by {place}"))
    return [rule for draft in drafts if (rule := _finished(draft, by_reference, allowed, problems))]


def _filtered(rules: list[Rule], filters: list[Filter], problems: list[Problem]) -> list[Rule]:
    """The rules, each with the filters that name it: both must hold."""
    by_reference = {reference: rule for rule in rules for reference in (rule.name, rule.uuid)}
    extra: dict[str, list[Node]] = {}
    for one in filters:
        chosen = [rule for rule in rules if rule.logsource == one.logsource] if one.rules is None else []
        for reference in one.rules or ():
            rule = by_reference.get(reference)
            if rule is None:
                problems.append(Problem(one.file, one.line, f"there is no rule {reference!r} to filter"))
            elif rule.window is not None:
                text = f"{reference!r} is a correlation; filter what it counts: {', '.join(rule.window.bases)}"
                problems.append(Problem(one.file, one.line, text))
            elif rule.logsource != one.logsource:
                problems.append(Problem(one.file, one.line, f"{reference!r} has another logsource than this filter"))
            else:
                chosen.append(rule)
        for rule in chosen:
            extra.setdefault(rule.name, []).append(Named(f"filter {Path(one.file).name}", one.tree))
    return [
        replace(rule, tree=And((rule.tree, *extra[rule.name]))) if rule.tree and rule.name in extra else rule
        for rule in rules
    ]


def _finished(
    draft: Draft, by_reference: dict[str, Draft], allowed: Node | None, problems: list[Problem]
) -> Rule | None:
    rule = draft.rule
    logsource = rule.logsource
    if rule.window is not None:
        bases = [by_reference.get(reference) for reference in rule.window.bases]
        for reference, base in zip(rule.window.bases, bases, strict=True):
            if base is None:
                problems.append(draft.problem("correlation", f"there is no rule {reference!r} to correlate"))
            elif base.rule.kind != "event":
                problems.append(
                    draft.problem("correlation", f"{reference!r} is a correlation; only rules can be counted")
                )
        known = [base for base in bases if base is not None]
        if len(known) < len(bases):
            return None
        logsource = known[0].rule.logsource
        rule = replace(rule, window=replace(rule.window, bases=tuple(base.rule.name for base in known)))
    if draft.excludes_egress and rule.tree is not None and allowed is not None:
        rule = replace(rule, tree=And((rule.tree, Not(Named("egress allow-list", allowed)))))
    if logsource is None:
        return None
    try:
        return replace(rule, tests=draft.tests(logsource))
    except ConfigError as e:
        problems += e.problems
        return None
