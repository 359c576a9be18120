"""How a process ended, told once."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from tests.kernel.conftest import Watch, does
from tocsin.lab import Container

pytestmark = [pytest.mark.kernel, pytest.mark.docker]


@pytest.mark.parametrize(
    ("command", "code", "signal"),
    [
        ("exit 0", 0, UNSET),
        ("exit 3", 3, UNSET),
        ("kill -9 $$", 137, "SIGKILL"),
        ("kill -TERM $$", 143, "SIGTERM"),
    ],
)
def test_exit_code(watch: Watch, box: Container, command: str, code: int, signal: object) -> None:
    mark = f"mark-exit-{code}"
    box.run("sh", "-c", f"sh -c '{command}' {mark}; true")
    event = watch.one(does("exit", box, command_line=f"sh -c {command} {mark}"))
    assert event.process and event.process.exit_code == code
    assert event.tocsin and event.tocsin.process and event.tocsin.process.signal == signal


def test_duration_is_the_life_of_the_process(watch: Watch, box: Container) -> None:
    box.run("sleep", "0.3")
    event = watch.one(does("exit", box, command_line="sleep 0.3"))
    assert isinstance(event.event.duration, int) and 0.3e9 <= event.event.duration < 2e9
    start = watch.one(does("exec", box, command_line="sleep 0.3"))
    assert event.process and start.process and event.process.entity_id == start.process.entity_id
    assert event.timestamp > start.timestamp and event.process.end == event.timestamp


def test_a_process_of_many_threads_ends_once(watch: Watch, workshop: Container) -> None:
    program = (
        "import os, threading, time\n"
        "for _ in range(8): threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
        "os._exit(7)\n"
    )
    for _ in range(5):
        workshop.run("sh", "-c", f"/usr/bin/python3 -c '{program}' mark-threads; true")
    workshop.run("true", "mark-after")
    watch.one(does("exit", workshop, command_line="true mark-after"))
    ends = watch.all(lambda e: does("exit", workshop, exit_code=7)(e))
    assert len(ends) == 5 == len({e.process.entity_id for e in ends if e.process})
