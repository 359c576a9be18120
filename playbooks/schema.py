"""From files to playbooks that can run: loads directories, checks everything, reports every problem with file and line.

Owns the checks that need more than one field. Nothing that loads here can fail later for a reason a file could show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ecs_mappings import template as contract
from playbooks import action as actions
from playbooks.action import Action, Secrets
from playbooks.document import Approve, Document, FailureStep, Mode, Retry, Step, Where
from playbooks.match import Matcher, networks
from playbooks.problems import Place, document_problems, dotted, line_of, near, sentence
from playbooks.references import fields_by_key, may_hold_secret, names_in
from playbooks.values import Condition, Scope, Template, ValueProblem, as_text, compiled, filled, has_template, texts
from tocsin import strict_yaml
from tocsin.errors import ConfigError, Problem

SHIPPED = Path(__file__).parent / "library"
"""The directory of the playbooks that come with Tocsin."""


@dataclass(frozen=True)
class ReadyStep:
    """A step with its action loaded and its templates compiled."""

    id: str
    uses: str
    action: Action
    values: Mapping[str, Any]
    condition: Condition | None
    retry: Retry | None
    timeout_s: float
    """Per attempt."""
    on_error: str
    undo_after_s: float | None
    """None: taken back only when a person asks."""
    approve: Approve | None

    def parameters(self, names: Mapping[str, Any]) -> BaseModel:
        """The action's parameters for one alert. ValueProblem when a template or the result does not fit."""
        values = filled(dict(self.values), names)
        model = self.action.parameters
        try:
            return model.model_validate(values)
        except ValidationError as e:
            # A template keeps its value's type; where a text is wanted, a number is its text.
            wanted = {x["loc"][0] for x in e.errors() if x["type"] == "string_type" and len(x["loc"]) == 1}
        try:
            return model.model_validate({k: as_text(v) if k in wanted else v for k, v in values.items()})
        except ValidationError as e:
            first = e.errors(include_url=False, include_input=False)[0]
            raise ValueProblem(f"with.{'.'.join(str(x) for x in first['loc'])}: {first['msg']}") from e


@dataclass(frozen=True)
class Playbook:
    """One playbook, checked and compiled."""

    file: str
    revision: str
    """First 12 hex digits of the file's sha256."""
    document: Document
    matcher: Matcher
    steps: tuple[ReadyStep, ...]
    on_failure: tuple[ReadyStep, ...]
    concurrency_key: Template | None
    cooldown_key: Template | None

    @property
    def name(self) -> str:
        return self.document.name


def load(
    directories: Iterable[Path], *, secrets: Secrets | None = None, rules: Collection[str] | None = None
) -> list[Playbook]:
    """The playbooks of all *.yml and *.yaml files in the directories (or files), sorted by name.

    A file in a later directory stands in for one of the same file name in an earlier one. `secrets`: used to see that
    each secret can be read, its value is dropped; None: not checked. `rules`: names and ids of all rules; None: not
    checked. Raises one ConfigError with all problems.
    """
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    for directory in directories:
        if not directory.exists():
            problems.append(Problem(str(directory), 0, "is not there"))
        files |= {path.name: path for path in _files(directory)}
    found: dict[str, Playbook] = {}
    for path in files.values():
        try:
            playbook = read(path, secrets=secrets, rules=rules)
        except ConfigError as e:
            problems += e.problems
            continue
        if other := found.get(playbook.name):
            problems.append(Problem(str(path), 0, f"the name {playbook.name!r} is taken by {other.file}"))
        found[playbook.name] = playbook
    if problems:
        raise ConfigError(problems)
    return sorted(found.values(), key=lambda p: p.name)


def read(path: Path, *, secrets: Secrets | None = None, rules: Collection[str] | None = None) -> Playbook:
    """The playbook of one file. Raises ConfigError with all of its problems."""
    source = strict_yaml.one(path)
    try:
        document = Document.model_validate(_plain(source))
    except ValidationError as e:
        raise ConfigError(document_problems(str(path), source, e)) from e
    # Who never runs needs no secrets: that is how a shipped playbook can name some and harm no fresh install.
    needed = None if document.mode is Mode.DISABLED else secrets
    checker = _Checker(str(path), source, needed, rules)
    playbook = checker.ready(document, hashlib.sha256(path.read_bytes()).hexdigest()[:12])
    if playbook is None or checker.problems:
        raise ConfigError(sorted(checker.problems, key=lambda p: p.line))
    return playbook


class _Checker:
    """Compiles one document and collects what is wrong with it."""

    def __init__(self, file: str, source: Any, secrets: Secrets | None, rules: Collection[str] | None) -> None:
        self.file = file
        self.source = source
        self.secrets = secrets
        self.rules = rules
        self.problems: list[Problem] = []

    def problem(self, place: Place, text: str) -> None:
        self.problems.append(Problem(self.file, line_of(self.source, place), f"{dotted(place)}: {text}"))

    def ready(self, document: Document, revision: str) -> Playbook | None:
        self._check_match(document)
        ids = [s.id for s in document.steps]
        failure_ids = [s.id or f"on_failure_{n}" for n, s in enumerate(document.on_failure, 1)]
        for at, name in enumerate(ids + failure_ids):
            if name in (ids + failure_ids)[:at]:
                place = ("steps", at) if at < len(ids) else ("on_failure", at - len(ids))
                self.problem(place, f"the id {name!r} is taken by an earlier step")
        scopes = [Scope(steps=tuple(ids[:n]), later=tuple(ids[n:])) for n in range(len(ids))]
        steps = [self._step(("steps", n), s, s.id, scopes[n]) for n, s in enumerate(document.steps)]
        failed = Scope(steps=tuple(ids), failure=True)
        on_failure = [
            self._step(("on_failure", n), s, failure_ids[n], failed) for n, s in enumerate(document.on_failure)
        ]
        busy = self._key(("concurrency", "key"), document.concurrency.key if document.concurrency else None)
        cooldown = self._key(("cooldown", "key"), document.cooldown.key if document.cooldown else None)
        if self.problems:
            return None
        return Playbook(
            self.file, revision, document, Matcher(document.match),
            tuple(s for s in steps if s), tuple(s for s in on_failure if s), busy, cooldown,
        )  # fmt: skip

    def _check_match(self, document: Document) -> None:
        for n, name in enumerate(document.match.rules or []):
            if self.rules is not None and name not in self.rules:
                self.problem(("match", "rules", n), f"there is no rule {name!r}{near(name, self.rules)}")
        for n, where in enumerate(document.match.where or []):
            try:
                check_where(where)
            except ValueError as e:
                self.problem(("match", "where", n), str(e))

    def _key(self, place: Place, source: str | None) -> Template | None:
        try:
            return Template(source, Scope()) if source else None
        except ValueProblem as e:
            self.problem(place, str(e))
            return None

    def _step(self, place: Place, step: FailureStep, name: str, scope: Scope) -> ReadyStep | None:
        try:
            action = actions.load(step.uses)
        except ConfigError as e:
            self.problem((*place, "uses"), e.problems[0].text)
            return None
        condition, values = None, {}
        try:
            condition = Condition(step.if_, scope) if step.if_ else None
        except ValueProblem as e:
            self.problem((*place, "if"), str(e))
        for key, value in step.with_.items():
            try:
                values[key] = compiled(value, scope)
            except ValueProblem as e:
                self.problem((*place, "with", key), str(e))
        self._check_parameters((*place, "with"), action, step.with_)
        full = step if isinstance(step, Step) else None
        if full and full.undo and not action.undoable:
            self.problem((*place, "undo"), f"{step.uses} has no inverse")
        return ReadyStep(
            name, step.uses, action, values, condition, step.retry, step.timeout,
            full.on_error if full else "continue", full.undo.after if full and full.undo else None,
            full.approve if full else None,
        )  # fmt: skip

    def _check_parameters(self, place: Place, action: Action, given: Mapping[str, Any]) -> None:
        """Validates what is already known; a parameter with a template is validated when it is filled in."""
        known = fields_by_key(action.parameters.model_fields)
        open_keys = {key for key, value in given.items() if has_template(value)}
        for key in given:
            if key not in known:
                self.problem((*place, key), f"is not a parameter{near(key, known)}")
            elif may_hold_secret(known[key]) and key in open_keys:
                # What an attacker chooses must never be able to name a secret.
                self.problem((*place, key), "may hold a secret and so takes no template")
            else:
                self._check_secrets((*place, key), given[key], may_hold_secret(known[key]))
        for key, field in known.items():
            if key not in given and isinstance(field.default, str) and may_hold_secret(field):
                self._check_secrets(place, field.default, True)
        try:
            action.parameters.model_validate({k: v for k, v in given.items() if k in known and k not in open_keys})
        except ValidationError as e:
            for error in e.errors(include_url=False, include_input=False):
                if not (error["type"] == "missing" and error["loc"][0] in open_keys):
                    self.problem((*place, *error["loc"]), sentence(error))

    def _check_secrets(self, place: Place, value: Any, allowed: bool) -> None:
        for text in texts(value):
            try:
                names = names_in(text)
            except ValueError as e:
                self.problem(place, str(e))
                continue
            if names and not allowed:
                self.problem(place, "may not hold a secret: it could end up in messages or evidence")
            for name in names if self.secrets else []:
                assert self.secrets is not None
                try:
                    self.secrets(name)
                except ConfigError as e:
                    self.problem(place, str(e.problems[0]))


def check_where(where: Where) -> None:
    """ValueError when the field is unknown, or the operator could never hold for it."""
    name, operand = where.operator
    word = name.rstrip("_")
    field = contract.field_type(where.field)
    if field is None:
        raise ValueError(f"{where.field!r} is not a field of an event{near(where.field, contract.field_paths())}")
    number, flag = field.kind in ("long", "float"), field.kind == "boolean"
    if word in ("gt", "gte", "lt", "lte") and not number:
        raise ValueError(f"{word} compares numbers, and {where.field} is a {field.kind}")
    if word in ("contains", "startswith", "endswith") and (number or flag):
        raise ValueError(f"{word} looks into texts, and {where.field} is a {field.kind}")
    if word in ("cidr", "not_cidr"):
        if field.kind != "ip":
            raise ValueError(f"{word} takes addresses, and {where.field} is a {field.kind}")
        networks(operand)
    if word in ("equals", "in", "not_in"):
        expected: tuple[type, ...] = (bool,) if flag else (int, float) if number else (str,)
        for value in operand if isinstance(operand, list) else [operand]:
            if not isinstance(value, expected) or (number and isinstance(value, bool)):
                raise ValueError(f"{where.field} is a {field.kind}; it can never be {value!r}")


def _files(directory: Path) -> list[Path]:
    if directory.is_file():
        return [directory]
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.iterdir() if p.suffix in (".yml", ".yaml") and not p.name.startswith("."))


def _plain(value: Any) -> Any:
    """The same without line numbers: pydantic wants real dicts and lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
