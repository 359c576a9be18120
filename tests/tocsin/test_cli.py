"""The command line as a whole: help, version, exit codes, errors, speed."""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Callable
from typing import Any

import pytest

import tocsin.cli

Tocsin = Callable[..., Any]

GROUPS_AND_COMMANDS = sorted(m.name for m in pkgutil.iter_modules(tocsin.cli.__path__) if not m.name.startswith("_"))


@pytest.mark.parametrize("name", GROUPS_AND_COMMANDS)
def test_every_command_has_help(tocsin: Tocsin, name: str) -> None:
    ran = tocsin(name, "--help")
    assert ran.code == 0
    assert "Usage" in ran.out


def test_help_names_every_command(tocsin: Tocsin) -> None:
    text = tocsin("--help").out
    for name in GROUPS_AND_COMMANDS:
        assert f" {name} " in text


def test_version(tocsin: Tocsin) -> None:
    assert tocsin("version").out.startswith("tocsin 0.")
    (row,) = tocsin("version", "--json").rows
    assert set(row) == {"tocsin", "python", "kernel"}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["nope"], "nope"),
        (["events", "search", "--nope"], "--nope"),
        (["start"], "Missing argument"),
        (["start", "nope"], "there is no process 'nope': there are "),
        (["--config", "/nowhere.toml", "doctor"], "error: /nowhere.toml: cannot be read: No such file"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(tocsin_process: Tocsin, args: list[str], expected: str) -> None:
    ran = tocsin_process(*args)
    assert ran.code == 2
    assert expected in ran.err
    assert "Traceback" not in ran.err


def test_quick_to_start(tocsin_process: Tocsin) -> None:
    """Not a benchmark: it fails when a command file begins to load what only its work needs."""
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        assert tocsin_process("--help").code == 0
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.8


def test_no_colours_into_a_pipe(tocsin_process: Tocsin) -> None:
    assert "\x1b" not in tocsin_process("--help").out
    assert "\x1b" not in tocsin_process("doctor", "--settings").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for(tocsin_process: Tocsin, shell: str) -> None:
    environ = {"_TOCSIN_COMPLETE": f"complete_{shell}", "COMP_WORDS": "tocsin start fo", "COMP_CWORD": "2",
               "_TYPER_COMPLETE_ARGS": "tocsin start fo", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}  # fmt: skip
    assert "forwarder" in tocsin_process(environ=environ).out
