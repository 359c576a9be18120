"""The lab removes what it made, also what a killed run left, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tocsin.lab import Lab, outside, runs
from tocsin.lab.client import docker, labelled

pytestmark = pytest.mark.docker


def owned(run: str) -> dict[str, int]:
    """How many things of each kind carry the label of this run."""
    found = {kind: list(labelled(kind, runs.LABEL).values()).count(run) for kind in ("container", "network", "image")}
    return {**found, "interface": list(outside.interfaces().values()).count(run)}


def test_removes_all_it_made_even_when_paused() -> None:
    with Lab() as lab:
        container = lab.container("web")
        lab.outside()
        docker("pause", container.id)
        assert owned(lab.run) == {"container": 1, "network": 1, "image": 1, "interface": 1}
    assert owned(lab.run) == {"container": 0, "network": 0, "image": 0, "interface": 0}


def test_the_next_run_removes_what_a_killed_one_left_and_leaves_a_living_one_alone() -> None:
    script = (
        "from tocsin.lab import Lab; import time\n"
        "lab = Lab().__enter__(); lab.container('left'); lab.outside(); print(lab.run, flush=True); time.sleep(60)"
    )
    with Lab() as living, subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        living.container("stays")
        assert child.stdout is not None
        killed = child.stdout.readline().strip()
        assert owned(killed)["container"] == 1
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with Lab():
            assert owned(killed) == {"container": 0, "network": 0, "image": 0, "interface": 0}
            assert owned(living.run)["container"] == 1


def test_only_a_run_of_this_host_whose_process_is_gone_counts_as_dead() -> None:
    mine = runs.new()
    namespace, pid, started = mine.split("-")
    assert not runs.is_dead(mine)
    assert runs.is_dead(f"{namespace}-{pid}-{int(started) + 1}")
    assert not runs.is_dead(f"1-{pid}-1")
    assert not runs.is_dead("somebody else's label")


def test_a_terminal_is_a_terminal_and_the_outside_is_reached() -> None:
    with Lab() as lab:
        listener = lab.outside(4445)
        container = lab.container("worker")
        with container.terminal("sh") as terminal:
            terminal.wait_for("#")
            terminal.type(f"tty; nc {outside.ADDRESS} 4445 < /dev/null && echo rea''ched; exit 3\n")
            assert terminal.finish() == 3
            assert b"/dev/pts/" in terminal.shown
        assert b"reached" in terminal.shown
        assert listener.accepted == 1


def test_runs_a_program_of_this_host_with_its_libraries() -> None:
    with Lab() as lab:
        image = lab.build("servers", programs=("redis-server",), files={"etc/motd": b"hello\n"})
        container = lab.container("redis", image=image)
        assert "Redis server" in container.run("redis-server", "--version")
        assert container.run("cat", "/etc/motd") == "hello"


def test_a_killed_run_takes_its_tocsin_with_it_and_the_next_one_removes_the_directory() -> None:
    script = (
        "from tocsin.lab.instance import Instance; import time\n"
        "tocsin = Instance(); tocsin.start()\n"
        "print(tocsin.directory, tocsin.state()['pid'], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        directory, pid = child.stdout.readline().split()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    with Lab():
        assert not Path(directory).exists()
