"""`tocsin bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from tocsin.cli._options import Json


def _names(incomplete: str) -> list[str]:
    from tocsin import bench

    return [name for name in bench.names() if name.startswith(incomplete)]


def bench(
    name: Annotated[str, typer.Argument(help="attribution, delivery, response, ...", autocompletion=_names)],
    count: Annotated[int | None, typer.Option("--count", min=1, help="Runs, processes or events.")] = None,
    store: Annotated[str, typer.Option("--store", help="sqlite, or http://host:9200.")] = "sqlite",
    as_json: Json = False,
) -> None:
    """Measure Tocsin on this machine, with containers and a state of its own. Exit 1 when a target is missed.

    [bold]Example:[/] tocsin bench response
    """
    import signal
    import sys

    from tocsin import bench as benches
    from tocsin.terminal import print_json, print_table, state

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then too
    measure = benches.load(name)
    figures = measure.run(count, store, lambda text: print(text, file=sys.stderr, flush=True))
    if as_json:
        print_json({"bench": name, "ok": all(f.ok for f in figures), "figures": [f.json() for f in figures]})
    else:
        rows = [
            (f.name, f"{f.value:,.1f}", f.unit, f.bound(), f.compared(), state("ok" if f.ok else "failed"))
            for f in figures
        ]
        print_table(["figure", "value>", "unit", "must be", "compared", ""], rows)
    if not all(figure.ok for figure in figures):
        raise typer.Exit(1)
