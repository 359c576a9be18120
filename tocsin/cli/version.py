"""`tocsin version`."""

from __future__ import annotations

import typer

from tocsin.cli._options import Json


def version(as_json: Json = False) -> None:
    """Print the version of Tocsin, of Python and of the kernel."""
    import importlib.metadata
    import platform

    from tocsin.terminal import print_json

    found = {
        "tocsin": importlib.metadata.version("tocsin"),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    if as_json:
        print_json(found)
    else:
        typer.echo(f"tocsin {found['tocsin']} (Python {found['python']}, Linux {found['kernel']})")
