"""The table of processes: what a guest can make it hold, and who is forgotten first."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ecs_mappings.event import ParentProcess
from sensor.processes import TICK_NS, Processes
from sensor.program import KEPT_ARGS, Program

NOW = datetime.now(UTC)
PARENT = ParentProcess(pid=1)


def execute(processes: Processes, pid: int, args: list[str], executable: str = "/bin/x") -> None:
    program = Program("x", executable, args, len(args), " ".join(args), "/")
    processes.executed(pid, pid * TICK_NS, NOW, b"c" * 64, program, PARENT, [])


@pytest.mark.parametrize(
    ("args", "executable"), [(["ab"] * 2700, "/bin/x"), (["\U0001f600" * 2040], "/" + "\U0001f600" * 2000)]
)
def test_long_command_lines_do_not_fill_the_memory(args: list[str], executable: str) -> None:
    processes = Processes("boot", max_bytes=1_000_000)
    for pid in range(1, 1000):
        execute(processes, pid, args, executable)
    held = [known for pid in range(1, 1000) if (known := processes.find(pid, pid * TICK_NS))]
    assert held and sum(known.size for known in held) <= 1_000_000
    assert processes.find(999, 999 * TICK_NS) is held[-1]


def test_who_has_ended_is_forgotten_before_who_lives() -> None:
    processes = Processes("boot", max_bytes=100_000)
    execute(processes, 1, ["nginx"])
    for pid in range(2, 200):
        execute(processes, pid, ["sh", "-c", "x" * 1000])
        processes.ended(pid, pid * TICK_NS)
    assert processes.find(1, TICK_NS)
    assert processes.find(2, 2 * TICK_NS) is None and processes.find(199, 199 * TICK_NS)


def test_few_arguments_are_kept_and_the_others_missed() -> None:
    processes = Processes("boot")
    execute(processes, 1, ["a"] * (KEPT_ARGS + 1))
    known = processes.find(1, TICK_NS)
    assert known and (known.args, known.args_count, known.cut) == (["a"] * KEPT_ARGS, 65, ("process.args",))
    assert known.command_line == " ".join(["a"] * 65)
