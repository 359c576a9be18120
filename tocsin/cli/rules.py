"""`tocsin rules check|list|test|explain`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tocsin.cli._checks import loaded_or_told
from tocsin.cli._options import Config, Json, settings

if TYPE_CHECKING:
    from correlator.ruleset import RuleSet
    from ecs_mappings.event import Event

app = typer.Typer(help="Sigma rules: check, list, test and explain them.")

Paths = Annotated[
    list[Path] | None,
    typer.Argument(help="Files or directories; default: the shipped ones and yours.", exists=True),
]


def _names(incomplete: str) -> list[str]:
    from tocsin.errors import TocsinError
    from tocsin.inputs import load_rules
    from tocsin.settings import load

    try:
        return [rule.name for rule in load_rules(load()).rules if rule.name.startswith(incomplete)]
    except TocsinError:  # the shell is waiting for words, not for complaints
        return []


def _load(config: Path | None, paths: list[Path] | None, as_json: bool) -> RuleSet:
    from correlator import sigma
    from tocsin.inputs import load_rules

    loaded = settings(config)
    if paths:
        return loaded_or_told(lambda: sigma.load(paths, loaded.correlator.egress), as_json)
    return loaded_or_told(lambda: load_rules(loaded), as_json)


@app.command()
def check(paths: Paths = None, config: Config = None, as_json: Json = False) -> None:
    """Check rule files and run the tests they carry. Exit 2 for an invalid file, 1 for a test that fails.

    [bold]Examples:[/] tocsin rules check
    tocsin rules check ./my-rules ./one-more.yml --json
    """
    _run_tests(_load(config, paths, as_json), as_json, verbose=False)


@app.command()
def test(
    rule: Annotated[str | None, typer.Argument(help="Only this rule.", autocompletion=_names)] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run the tests that rules carry, and say how each went. Exit 1 if one fails.

    [bold]Example:[/] tocsin rules test reverse-shell
    """
    rules = _load(config, None, as_json)
    _run_tests(rules.only(rule) if rule else rules, as_json, verbose=True)


def _run_tests(rules: RuleSet, as_json: bool, verbose: bool) -> None:
    from correlator.testing import run
    from tocsin.terminal import print_json, print_state

    results = run(rules)
    for result in results:
        if as_json:
            print_json({"ok": result.passed, **dataclasses.asdict(result)})
        elif verbose or not result.passed:
            place = "" if result.passed else f"  {result.file}:{result.line}: {result.detail}"
            print_state("ok" if result.passed else "fail", f"{result.rule}: {result.test}{place}")
    for warning in rules.warnings:
        if as_json:
            print_json({"ok": True, "file": warning.file, "line": warning.line, "warning": warning.text})
        else:
            print_state("warn", str(warning))
    failed = sum(not result.passed for result in results)
    if not as_json:
        total = f"{len(rules.rules)} rules, {len(results)} tests"
        print_state("fail" if failed else "ok", f"{total}, {failed} failed" if failed else total)
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_rules(config: Config = None, as_json: Json = False) -> None:
    """All rules that are in force.

    [bold]Example:[/] tocsin rules list --json | jq -r .name
    """
    from tocsin.terminal import print_json, print_table, state

    rules = [rule for rule in _load(config, None, as_json).rules if rule.alerts]
    if as_json:
        for rule in rules:
            print_json(
                {"name": rule.name, "id": rule.uuid, "title": rule.title, "level": rule.level, "kind": rule.kind,
                 "tags": list(rule.tags), "file": rule.file, "line": rule.line, "tests": len(rule.tests)}
            )  # fmt: skip
        return
    rows = ((rule.name, state(rule.level), rule.title, len(rule.tests)) for rule in rules)
    print_table(("NAME", "LEVEL", "TITLE", "TESTS>"), rows, empty="there are no rules")


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(help="Name of the rule.", autocompletion=_names)],
    event: Annotated[
        str | None,
        typer.Option("--event", help="Id of an event in the store, or @FILE with one as JSON: why it matches, or not."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say in words what a rule looks for; with an event also why it matches, or does not.

    [bold]Examples:[/] tocsin rules explain port-scan
    tocsin rules explain reverse-shell --event @event.json
    """
    from correlator.explain import explain as explained
    from tocsin.terminal import print_json, print_text

    rules = _load(config, None, as_json)
    found = explained(rules, rule, _event(config, event) if event else None)
    if as_json:
        print_json(found.as_dict())
        return
    for line in found.lines():
        print_text(line)


def _event(config: Path | None, given: str) -> Event:
    import msgspec

    from ecs_mappings.event import decode
    from tocsin.errors import UsageError
    from tocsin.storage import opened

    if given.startswith("@"):
        try:
            return decode(Path(given[1:]).read_bytes())
        except OSError as e:
            raise UsageError(f"{given[1:]}: cannot be read: {e.strerror}") from e
        except msgspec.MsgspecError as e:
            raise UsageError(f"{given[1:]}: is not an event: {e}") from e
    with opened(settings(config)) as store:
        document = store.get(given)
    if document is None:
        raise UsageError(f"{given!r}: there is no such event in the store; see `tocsin events search --json`")
    return decode(document)
