"""All of Tocsin under its supervisor, on the real kernel: start, ask, kill, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tocsin import health
from tocsin.errors import TocsinError
from tocsin.lab.instance import Instance
from tocsin.privileges import is_private

pytestmark = [pytest.mark.kernel, pytest.mark.docker]

# The host may run containers that are not ours to freeze.
HARMLESS = {"playbooks": {"mode": "disabled"}}
PROCESSES = ("correlator", "forwarder", "playbooks", "sensor")


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with Instance(HARMLESS) as instance:
        yield instance


def until(condition: Callable[[], bool], timeout_s: float = 20) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout_s, "waited too long"
        time.sleep(0.01)
    return time.monotonic() - begun


def cli(instance: Instance, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "tocsin", "--config", str(instance.directory / "tocsin.toml"), *args],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_all_is_well_and_said_so(running: Instance) -> None:
    until(lambda: bool(health.ask(running.settings)["ok"]))
    shown = cli(running, "status")
    assert shown.returncode == 0, shown.stdout
    assert "all is well" in shown.stdout
    assert {line.split()[0] for line in shown.stdout.splitlines()} >= set(PROCESSES)
    assert "ready after" in running.log_end()


def test_private_directories(running: Instance) -> None:
    for path in (running.settings.paths.run_dir, running.settings.paths.state_dir):
        assert is_private(path, running.settings)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_killed_process_is_started_again_at_once(running: Instance, name: str) -> None:
    def child() -> dict[str, Any]:
        found: dict[str, Any] = (running.state() or {})["processes"][name]
        return found

    restarts = child()["restarts"]
    dead = running.kill(name)
    assert until(lambda: child()["restarts"] > restarts and child()["pid"] not in (dead, None)) < 1
    until(lambda: bool(health.ask(running.settings)["ok"]))


def test_nothing_is_decided_by_default_and_the_audit_holds(running: Instance) -> None:
    assert cli(running, "runs", "list").stdout == "no playbook has run\n"
    assert cli(running, "approve").stdout == "nothing waits for a person\n"
    assert cli(running, "undo", "list").stdout == "nothing is armed\n"
    halted = cli(running, "halt", "--by", "ann")
    assert "halted by ann" in halted.stdout
    assert "halted by ann" in cli(running, "status").stdout
    assert cli(running, "resume", "--json").stdout == '{"halted_by": null}\n'
    verified = cli(running, "audit", "verify")
    assert (verified.returncode, verified.stdout) == (0, "[ ok ] 2 rows, the chain holds\n")


@pytest.mark.parametrize("args", [("undo", "now", "no"), ("approve", "no"), ("runs", "show", "no")])
def test_what_is_not_there_exits_2(running: Instance, args: tuple[str, ...]) -> None:
    ran = cli(running, *args)
    assert ran.returncode == 2
    assert "'no': there is no such" in ran.stderr


def test_a_second_one_and_a_second_process_are_refused(running: Instance) -> None:
    second = cli(running, "up")
    assert second.returncode == 2
    assert f"runs here already (pid {(running.state() or {})['pid']})" in second.stderr
    process = cli(running, "start", "forwarder")
    assert process.returncode == 2
    assert "forwarder.sock is in use" in process.stderr


def test_stops_in_order_within_seconds() -> None:
    with Instance(HARMLESS) as instance:
        begun = time.monotonic()
        instance.stop()
        assert time.monotonic() - begun < 10
        log = instance.log_end(40)
        said = [log.index(x) for x in ("sensor stopped", "correlator has stopped", "forwarder has stopped")]
        assert said == sorted(said)
        assert not list(instance.settings.paths.run_dir.glob("*.sock"))


def test_killed_as_a_whole_it_starts_again() -> None:
    with Instance(HARMLESS) as instance:
        pids = [instance.pid(name) for name in PROCESSES]
        os.kill(int((instance.state() or {})["pid"]), signal.SIGKILL)
        until(lambda: instance.state() is None)
        instance.stop()  # reaps it
        instance.start()
        assert not set(pids) & {instance.pid(name) for name in PROCESSES}
        until(lambda: bool(health.ask(instance.settings)["ok"]))


def test_without_docker_and_with_the_store_away_it_runs_and_says_so() -> None:
    nowhere = "unix:///nowhere/docker.sock"
    with Instance(
        {
            "store": {"url": "http://127.0.0.1:9"},
            "sensor": {"docker": nowhere},
            "playbooks": {"docker": nowhere, "mode": "disabled"},
        }
    ) as instance:
        status = cli(instance, "status")
        assert status.returncode == 1
        assert "sensor: no Docker" in status.stdout
        assert "the store http://127.0.0.1:9 does not answer" in status.stdout
        until(lambda: "events wait in the spool" in instance.log_end(100))
        search = cli(instance, "events", "search")
        assert search.returncode == 1
        assert search.stderr.startswith("error: http://127.0.0.1:9: the store does not answer")
        assert instance.status("forwarder")["topics"]["events"]["next"] > 0


def test_what_cannot_start_is_told() -> None:
    with pytest.raises(TocsinError, match="there is no store 'nope'"), Instance({"store": {"url": "nope"}}):
        raise AssertionError("it started")
