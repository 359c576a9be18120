"""How `rules check` and `playbooks check` tell what is wrong with files: all problems at once, exit 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

from tocsin.errors import ConfigError

T = TypeVar("T")


def loaded_or_told(load: Callable[[], T], as_json: bool) -> T:
    """What `load` gives. Of a ConfigError with --json each problem is a line on stdout, for editors and CI."""
    if not as_json:
        return load()
    try:
        return load()
    except ConfigError as e:
        from tocsin.terminal import print_json

        for problem in e.problems:
            print_json({"ok": False, "file": problem.file, "line": problem.line, "problem": problem.text})
        raise typer.Exit(e.exit_code) from e
