"""The command `tocsin`. Owns the command tree, exit codes and how errors reach people; each command is its own file.

A file `name.py` here is the command `name`: either one function `name`, or `app`, a typer.Typer with sub-commands. At
import a command file loads only typer; what it needs to work it imports inside its functions, so `--help` stays quick.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from tocsin.errors import TocsinError


class _Commands(typer.core.TyperGroup):
    """Turns errors people can mend into one line on stderr and the error's exit code. Anything else is a defect."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TocsinError as e:
            from tocsin.terminal import print_error

            print_error(str(e))
            raise typer.Exit(e.exit_code) from e
        except (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
            from tocsin.terminal import print_error

            print_error(f"{e.filename or 'a file'}: {e.strerror}")
            raise typer.Exit(1) from e


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="See what happens in containers, judge it, answer it.",
    epilog="Exit codes: 0 done, 1 failed or not well, 2 wrong usage or an invalid file. Try: tocsin doctor",
)


@app.callback()
def _root(
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file (default /etc/tocsin/tocsin.toml, if it is there).")
    ] = None,
) -> None:
    if config is not None:
        os.environ["TOCSIN_CONFIG"] = str(config)  # where each command's own --config looks


def _find_commands() -> None:
    for stem in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
        module = importlib.import_module(f"{__name__}.{stem}")
        if hasattr(module, "app"):
            for command in module.app.registered_commands:
                command.help = _help(command.callback)
            app.add_typer(module.app, name=stem, no_args_is_help=True)
        else:
            function = getattr(module, stem)
            app.command(stem, help=_help(function))(function)


def _help(function: Callable[..., Any] | None) -> str:
    """The docstring, each paragraph on one line for the terminal to wrap; only examples keep their lines."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(p if p.startswith("[bold]") else " ".join(p.split()) for p in paragraphs)


_find_commands()


def main() -> None:
    """The console script."""
    try:
        app(prog_name="tocsin")  # also under `python -m`: completion and help go by it
    except BrokenPipeError:
        # Whoever read us has gone (`| head`). Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
