"""`tocsin events search` and `tocsin events tail`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tocsin.cli import _filters
from tocsin.cli._options import Config, Json, settings

if TYPE_CHECKING:
    from store import Query, Store

app = typer.Typer(help="What was seen: search the store, or follow it.")

Dataset = Annotated[
    list[str] | None,
    typer.Option("--dataset", help="process, network, container, privilege, alert, response, sensor; several: any."),
]
Action = Annotated[str | None, typer.Option("--action", help="event.action: exec, exit, connect, ...")]

OVERLAP_S = 5
"""How late an event may reach the store and still be shown by `tail`."""


@app.command()
def search(
    container: _filters.Container = None,
    dataset: Dataset = None,
    action: Action = None,
    since: _filters.Since = None,
    until: _filters.Until = None,
    text: _filters.Text = None,
    where: _filters.Where = None,
    limit: _filters.Limit = 50,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The newest events that match, oldest first.

    [bold]Examples:[/] tocsin events search --container web --since 10m
    tocsin events search --where process.name=curl --json | jq .process.args
    """
    from tocsin.event_line import print_event
    from tocsin.storage import opened

    asked = _filters.query(
        datasets=dataset or (), action=action, container=container, since=since, until=until, text=text, where=where,
        limit=limit,
    )  # fmt: skip
    with opened(settings(config)) as store:
        documents = store.search(asked).documents[::-1]
    for document in documents:
        print_event(document, as_json)
    if not documents and not as_json:
        typer.echo("no event matches")


@app.command()
def tail(
    container: _filters.Container = None,
    dataset: Dataset = None,
    action: Action = None,
    text: _filters.Text = None,
    where: _filters.Where = None,
    since: _filters.Since = None,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between looks.")] = 0.5,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Follow new events until Ctrl-C. One that reaches the store more than five seconds late is not shown.

    [bold]Example:[/] tocsin events tail --container web --dataset process
    """
    from tocsin.storage import opened

    asked = _filters.query(
        datasets=dataset or (), action=action, container=container, since=since or "1s", text=text, where=where
    )
    with opened(settings(config)) as store:
        _follow(store, asked, interval, as_json)


def _follow(store: Store, asked: Query, interval: float, as_json: bool) -> None:
    """Looks again and again at the last seconds; what was shown is remembered as long as it can come again."""
    import time
    from dataclasses import replace
    from datetime import UTC, datetime, timedelta

    from ecs_mappings.event import decode
    from store import MAX_LIMIT
    from tocsin.errors import RetryLater
    from tocsin.event_line import print_event

    shown: dict[str, datetime] = {}
    while True:
        edge = datetime.now(UTC) - timedelta(seconds=OVERLAP_S)
        page_query = replace(asked, order="asc", limit=MAX_LIMIT)
        try:
            while True:
                page = store.search(page_query)
                for document in page.documents:
                    event = decode(document)
                    if event.event.id not in shown:
                        shown[event.event.id] = event.timestamp
                        print_event(document, as_json)
                if page.next is None:
                    break
                page_query = replace(page_query, after=page.next)
        except RetryLater as e:
            typer.echo(f"the store does not answer ({e}); waiting", err=True)
        first = max(asked.since or edge, edge)
        asked = replace(asked, since=first)
        shown = {key: at for key, at in shown.items() if at >= first}
        time.sleep(interval)
