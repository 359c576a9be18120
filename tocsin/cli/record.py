"""`tocsin record FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tocsin.cli._options import Config, settings


def record(
    file: Annotated[Path, typer.Argument(help="Where to; must not be there yet.")],
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, help="Stop after so long.")] = None,
    config: Config = None,
) -> None:
    """Record what the kernel and Docker tell, until Ctrl-C; needs root. Beside a running Tocsin, or without one.

    [bold]Example:[/] tocsin record attack.tocsin --seconds 60
    """
    import signal
    import tempfile
    import threading

    from sensor import checks
    from sensor.sensor import Sensor

    checks.need()
    chosen = settings(config).sensor
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="tocsin-record-") as state_dir:
        sensor = Sensor(
            lambda lines: None, Path(state_dir), scope=chosen.scope, docker=chosen.docker,
            ring_mib=chosen.ring_mib, heartbeat_s=chosen.heartbeat_s, record=file, on_failure=lambda _: stop.set(),
        )  # fmt: skip
        sensor.start()
        typer.echo(f"recording into {file}; Ctrl-C ends it", err=True)
        stop.wait(seconds)
        sensor.stop()
        status = sensor.status()
    typer.echo(f"{status['captured']} records, {status['lost']} lost", err=True)
