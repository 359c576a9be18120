"""Somebody opens a shell in a container, through a real terminal."""

from __future__ import annotations

import pytest

from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]


def test_a_shell_on_a_terminal(shooting_range: Range) -> None:
    container = shooting_range.container()
    with container.terminal("sh"):
        alert = shooting_range.alert("interactive-shell-in-container", container)
    assert alert.process and alert.process.interactive is True
    assert shooting_range.rules(container) == {"interactive-shell-in-container"}


def test_a_shell_without_a_terminal_is_none(shooting_range: Range) -> None:
    container = shooting_range.container()
    container.run("sh", "-c", "id; exit 0")
    assert shooting_range.stays_silent(container)
