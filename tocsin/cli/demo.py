"""`tocsin demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from tocsin.cli._options import Json


def demo(
    as_json: Json = False,
    store: Annotated[str, typer.Option("--store", help="sqlite, or http://host:9200.")] = "sqlite",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the containers and the state for a look.")] = False,
) -> None:
    """Attack throw-away containers and watch the answer: seen, judged, answered, verified, undone.

    Runs beside any other Tocsin, on a state and containers of its own, and removes both. With --json the story goes to
    stderr and stdout holds one JSON object. Exit 0 only if all holds.

    [bold]Example:[/] tocsin demo --store http://127.0.0.1:9200
    """
    import os
    import signal

    from tocsin.demo import show
    from tocsin.demo.story import tell
    from tocsin.errors import UsageError
    from tocsin.terminal import print_error, print_json

    if os.geteuid() != 0:
        raise UsageError("the demo loads BPF programs: run it as root (sudo)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then too
    screen = show.choose(to_stderr=as_json)
    try:
        report = tell(screen, store, keep)
    finally:
        screen.close()
    problems = report.problems()
    if as_json:
        print_json(report.json())
    for problem in problems:
        print_error(problem)
    if problems:
        raise typer.Exit(1)
    screen.say(report.summary())
