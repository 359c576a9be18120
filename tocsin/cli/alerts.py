"""`tocsin alerts list` and `tocsin alerts show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tocsin.cli import _filters
from tocsin.cli._options import Config, Json, settings

if TYPE_CHECKING:
    from ecs_mappings.event import Event
    from store.alerts import AlertGroup
    from tocsin.settings import Settings
    from tocsin.story import Story

app = typer.Typer(help="What was judged: alerts, and the story of each.")


@app.command("list")
def list_alerts(
    rule: Annotated[str | None, typer.Option("--rule", help="Only alerts of this rule.")] = None,
    severity: Annotated[
        list[str] | None, typer.Option("--severity", help="low, medium, high, critical; several: any of them.")
    ] = None,
    container: _filters.Container = None,
    since: _filters.Since = None,
    until: _filters.Until = None,
    text: _filters.Text = None,
    where: _filters.Where = None,
    limit: _filters.Limit = 50,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Alerts, newest first. Repeats are folded into the first: one line with count, first and last.

    [bold]Examples:[/] tocsin alerts list --since 1h
    tocsin alerts list --severity high --severity critical --json
    """
    from store.alerts import alerts
    from tocsin.describe import local, subject
    from tocsin.storage import opened
    from tocsin.terminal import print_json, print_table, state

    pairs = [*(where or ()), *([f"rule.id={rule}"] if rule else ())]
    pairs += [f"tocsin.alert.severity={level}" for level in severity or ()]
    asked = _filters.query(container=container, since=since, until=until, text=text, where=pairs, limit=limit)
    with opened(settings(config)) as store:
        groups = alerts(store, asked).groups
    if as_json:
        for group in groups:
            print_json(_public(group))
        return
    rows = (
        (group.id[:12], local(group.first_seen), local(group.last_seen), group.count, state(_severity(group.newest)),
         _rule(group.newest), subject(group.newest))
        for group in groups
    )  # fmt: skip
    print_table(("ID", "FIRST", "LAST", "COUNT>", "SEVERITY", "RULE", "CONTAINER"), rows, empty="no alert matches")


@app.command()
def show(
    alert: Annotated[str, typer.Argument(metavar="ID", help="Id of the alert, or its start.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """One alert's story: what happened, when each hop was done with it, and what was done about it.

    [bold]Example:[/] tocsin alerts show 3f9a
    """
    from tocsin.storage import opened
    from tocsin.story import tell
    from tocsin.terminal import print_json

    loaded = settings(config)
    with opened(loaded) as store:
        found = tell(store, alert, _stored(loaded))
    if as_json:
        print_json(_public_story(found))
    else:
        _print(found)


def _stored(loaded: Settings) -> dict[str, int]:
    """Of the newest alerts; empty when no forwarder runs here."""
    from tocsin.errors import TocsinError
    from tocsin.link import Client

    client = Client(loaded.socket("forwarder"), timeout_s=3)
    try:
        stored: dict[str, int] = client.get("/status").decoded()["stored"]
        return stored
    except TocsinError:
        return {}
    finally:
        client.close()


def _print(found: Story) -> None:
    from tocsin.describe import local, subject, summary
    from tocsin.terminal import print_line, print_text

    alert, newest = found.alert, found.newest
    print_text(f"{_severity(alert)}: {_rule(alert)} in {subject(alert)}", style="bold")
    if alert.rule and alert.rule.description:
        print_text(alert.rule.description)
    count = newest.tocsin.alert.count if newest.tocsin and newest.tocsin.alert else 1
    last = newest.tocsin.alert.last_seen if newest.tocsin and newest.tocsin.alert else found.detail.last_seen
    print_text(f"id {alert.event.id}")
    first = local(found.detail.first_seen)
    print_text(f"once, at {first}" if count == 1 else f"{count} times from {first} to {local(last)}")
    if not found.detail.evidence_complete:
        print_text("events were lost in the span this alert looked at", style="yellow")
    print_text("\nWhat happened", style="bold")
    for event in found.events:
        print_line(f"  {local(event.timestamp)}  {summary(event)}")
    for depth, process in enumerate(found.ancestors()):
        print_line(f"  {'by' if depth == 0 else '  ' * depth + '↳ started by'} {process}", style="dim")
    print_text("\nTimeline, from the kernel's time of the event", style="bold")
    for hop, ms in found.timeline().items():
        print_line(f"  {hop:<9} {ms:8.1f} ms")
    print_text("\nWhat was done", style="bold")
    for response in found.responses:
        print_line(f"  {local(response.timestamp)}  {summary(response)}")
    if not found.responses:
        print_line("  nothing")


def _severity(event: Event) -> str:
    return event.tocsin.alert.severity if event.tocsin and event.tocsin.alert else "?"


def _rule(event: Event) -> str:
    return (event.rule.name or event.rule.id or "?") if event.rule else "?"


def _public(group: AlertGroup) -> dict[str, Any]:
    from ecs_mappings.event import encode

    return {
        "id": group.id, "count": group.count, "first_seen": group.first_seen, "last_seen": group.last_seen,
        "severity": _severity(group.newest), "rule": group.newest.rule.id if group.newest.rule else None,
        "newest": json.loads(encode(group.newest)),
    }  # fmt: skip


def _public_story(found: Story) -> dict[str, Any]:
    from ecs_mappings.event import encode

    def plain(event: Event) -> Any:
        return json.loads(encode(event))

    return {
        "alert": plain(found.alert), "newest": plain(found.newest), "events": [plain(e) for e in found.events],
        "responses": [plain(e) for e in found.responses], "timeline_ms": found.timeline(),
        "ancestors": found.ancestors(),
    }  # fmt: skip
