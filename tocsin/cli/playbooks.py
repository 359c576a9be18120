"""`tocsin playbooks check|list|explain|schema`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tocsin.cli._checks import loaded_or_told
from tocsin.cli._options import Config, Json, settings

if TYPE_CHECKING:
    from playbooks.schema import Playbook, ReadyStep

app = typer.Typer(help="Playbooks: check, list and explain them.")

Paths = Annotated[
    list[Path] | None, typer.Argument(help="Files or directories; default: the shipped ones and yours.", exists=True)
]


def _names(incomplete: str) -> list[str]:
    from tocsin.errors import TocsinError
    from tocsin.inputs import load_playbooks
    from tocsin.settings import load

    try:
        return [p.name for p in load_playbooks(load()) if p.name.startswith(incomplete)]
    except TocsinError:  # the shell is waiting for words, not for complaints
        return []


@app.command()
def check(paths: Paths = None, config: Config = None, as_json: Json = False) -> None:
    """Check playbook files: fields, actions, templates, secrets, and that each rule they name is there.

    Every problem of every file is told with its line; exit 2 if there is any.

    [bold]Examples:[/] tocsin playbooks check
    tocsin playbooks check ./my-playbooks --json
    """
    from functools import partial

    from playbooks import schema
    from tocsin.inputs import load_playbooks, load_rules, rule_names
    from tocsin.settings import secret
    from tocsin.terminal import print_json, print_state

    loaded = settings(config)
    rules = loaded_or_told(lambda: load_rules(loaded), as_json)

    def load() -> list[Playbook]:
        if paths:
            return schema.load(paths, secrets=partial(secret, loaded), rules=rule_names(rules))
        return load_playbooks(loaded, rules, secrets=partial(secret, loaded))

    for playbook in loaded_or_told(load, as_json):
        if as_json:
            print_json({"ok": True, "file": playbook.file, "name": playbook.name, "revision": playbook.revision})
        else:
            print_state("ok", f"{playbook.name}  {playbook.file}")


@app.command("list")
def list_playbooks(config: Config = None, as_json: Json = False) -> None:
    """All playbooks that are in force, with what they answer and in which mode.

    [bold]Example:[/] tocsin playbooks list
    """
    from playbooks.document import Mode
    from tocsin.inputs import load_playbooks
    from tocsin.terminal import print_json, print_table

    loaded = settings(config)
    ceiling = Mode(loaded.playbooks.mode)
    found = [(p, p.document.mode.lowered_to(ceiling)) for p in load_playbooks(loaded)]
    if as_json:
        for playbook, mode in found:
            print_json(
                {"name": playbook.name, "mode": mode.value, "revision": playbook.revision, "file": playbook.file,
                 "description": playbook.document.description, "rules": playbook.document.match.rules,
                 "steps": [step.uses for step in playbook.steps]}
            )  # fmt: skip
        return
    rows = ((p.name, mode.value, _answers(p), ", ".join(step.uses for step in p.steps)) for p, mode in found)
    print_table(("NAME", "MODE", "ANSWERS", "STEPS"), rows, empty="there are no playbooks")


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="Name of the playbook.", autocompletion=_names)],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say in words what a playbook answers, what each step does, and how it is taken back.

    [bold]Example:[/] tocsin playbooks explain contain-interactive-shell
    """
    from tocsin.errors import UsageError
    from tocsin.inputs import load_playbooks
    from tocsin.terminal import print_json, print_text

    found = {p.name: p for p in load_playbooks(settings(config))}
    if name not in found:
        raise UsageError(f"there is no playbook {name!r}; there are {', '.join(found) or 'none'}")
    playbook = found[name]
    if as_json:
        print_json(playbook.document.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        return
    for line in _words(playbook):
        print_text(line)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a playbook file: editors check and complete with it.

    [bold]Example:[/] tocsin playbooks schema > playbook.schema.json
    """
    import json

    from playbooks.document import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _answers(playbook: Playbook) -> str:
    match = playbook.document.match
    parts = [", ".join(match.rules)] if match.rules else ["any rule"]
    if match.severity:
        parts.append(f"severity {match.severity if isinstance(match.severity, str) else ', '.join(match.severity)}")
    parts += [_condition(where.field, *where.operator) for where in match.where or []]
    return " and ".join(parts)


def _condition(field: str, operator: str, operand: Any) -> str:
    shown = ", ".join(str(x) for x in operand) if isinstance(operand, list) else operand
    return f"{field} {operator.rstrip('_').replace('_', ' ')} {shown}"


def _words(playbook: Playbook) -> Iterator[str]:
    document = playbook.document
    yield f"{playbook.name} ({document.mode.value}), {playbook.file}, revision {playbook.revision}"
    if document.description:
        yield document.description
    yield f"answers   {_answers(playbook)}"
    if document.protect.labels:
        yield f"never     containers labelled {', '.join(document.protect.labels)}"
    if document.concurrency:
        yield f"at a time one run per {document.concurrency.key}; when busy: {document.concurrency.when_busy}"
    if document.cooldown:
        yield f"cooldown  one run per {document.cooldown.key} in {_span(document.cooldown.for_)}"
    if document.limits:
        span = _span(document.limits.per)
        yield f"limit     beyond {document.limits.max_targets} containers in {span} each change needs approval"
    for number, step in enumerate(playbook.steps, 1):
        yield from _step(f"{number}.", step)
    for step in playbook.on_failure:
        yield from _step("on failure:", step)


def _step(label: str, step: ReadyStep) -> Iterator[str]:
    does = (type(step.action).__doc__ or step.action.__doc__ or "").strip().split("\n")[0]
    yield f"{label} {step.id}: {step.uses}. {does}"
    if step.condition is not None:
        yield f"     only if {step.condition.source}"
    if step.approve is not None:
        yield f"     asks a person first; without an answer in {_span(step.approve.timeout)}: {step.approve.on_timeout}"
    if step.undo_after_s is not None:
        yield f"     taken back after {_span(step.undo_after_s)}"
    elif step.action.undoable:
        yield "     can be taken back: tocsin undo now RUN"
    if step.retry is not None:
        yield f"     up to {step.retry.attempts} attempts"
    if step.on_error != "fail":
        yield f"     when it fails: {step.on_error.replace('_', ' ')}"


def _span(seconds: float) -> str:
    from tocsin.describe import ago

    return ago(seconds)
