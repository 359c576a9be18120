"""`tocsin elastic setup` and `tocsin elastic status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tocsin.cli._options import Config, Json, settings

if TYPE_CHECKING:
    from elastic.store import ElasticStore

app = typer.Typer(help="Elasticsearch: what it lacks for our data streams, and how it is.")


def _cluster(config: Path | None) -> ElasticStore:
    from elastic.store import ElasticStore
    from tocsin.errors import UsageError
    from tocsin.storage import open_store

    loaded = settings(config)
    store = open_store(loaded)
    if not isinstance(store, ElasticStore):
        store.close()
        raise UsageError(
            f"[store] url is {loaded.store.url}, not Elasticsearch: set it, or TOCSIN_STORE_URL=http://host:9200"
        )
    return store


@app.command()
def setup(config: Config = None, as_json: Json = False) -> None:
    """Bring the index templates up to date; does nothing when they are. The forwarder does the same when it may.

    [bold]Example:[/] TOCSIN_STORE_URL=https://es:9200 tocsin elastic setup
    """
    from elastic.client import translated
    from elastic.setup import setup as prepare
    from tocsin.terminal import print_json, print_text

    store = _cluster(config)
    try:
        with translated(store.url):
            done = prepare(store.client)
    finally:
        store.close()
    if as_json:
        print_json({"changed": done.changed, "features": dict(done.features), "rolled_over": list(done.rolled_over)})
        return
    print_text("templates written" if done.changed else "the templates are up to date")
    for stream in done.rolled_over:
        print_text(f"{stream}: began a new backing index, the old one could not take the new fields")
    lacking = sorted(name for name, there in done.features.items() if not there)
    if lacking:
        print_text(f"this cluster has no {', '.join(lacking)}: the nearest that it has is used")


@app.command()
def status(config: Config = None, as_json: Json = False) -> None:
    """Whether the cluster answers, what it holds of ours and what it offers. Exit 1 if it does not answer.

    [bold]Example:[/] tocsin elastic status --json
    """
    from dataclasses import asdict

    from tocsin.describe import since
    from tocsin.terminal import print_json, print_state

    store = _cluster(config)
    try:
        found = store.status()
    finally:
        store.close()
    if as_json:
        print_json({**asdict(found), "features": dict(found.features), "removed": dict(found.removed)})
    elif not found.reachable:
        print_state("fail", f"{found.place}: {found.problem}")
    else:
        newest = f", the newest {since(found.newest)}" if found.newest else ""
        print_state("ok", f"{found.place}: {found.version}, {found.documents} documents{newest}")
        for name, there in sorted(found.features.items()):
            print_state("ok" if there else "warn", f"{name}{'' if there else ': not offered, the nearest is used'}")
    if not found.reachable:
        raise typer.Exit(1)
