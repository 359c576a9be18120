from __future__ import annotations

import time

import pytest
from pydantic import ValidationError

from playbooks.action import Outcome, load
from playbooks.daemon import DaemonTimeout
from playbooks.daemon_fake import FakeDaemon

stop = load("docker.stop")
NOW = stop.parameters(timeout="1ms")
COUNTING = "trap 'echo asked' TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 10000; done"


@pytest.mark.parametrize("paused", [False, True])
def test_stops_for_good_and_starts_again(world, call, paused: bool) -> None:
    c = call(world.daemon, world.run(restart="always"))
    before = world.daemon.inspect(c.container_id).networks
    if paused:
        world.daemon.pause(c.container_id)
    plan = stop.plan(c, NOW)
    assert plan.change
    assert stop.act(c, NOW, plan).outcome is Outcome.CHANGED
    assert stop.verify(c, NOW, plan)
    assert not stop.plan(c, NOW).change
    assert stop.undo(c, NOW, plan.saved).outcome is Outcome.CHANGED
    state = world.daemon.inspect(c.container_id)
    assert state.running and not state.paused and state.networks.keys() == before.keys()
    assert stop.undo(c, NOW, plan.saved).outcome is Outcome.UNCHANGED


def test_gone_and_already_stopped_are_no_change(world, call) -> None:
    c = call(world.daemon, world.run())
    plan = stop.plan(c, NOW)
    world.daemon.stop(c.container_id, 0)
    assert not stop.plan(c, NOW).change
    world.remove(c.container_id)
    assert not stop.plan(c, NOW).change
    assert stop.act(c, NOW, plan).outcome is Outcome.UNCHANGED
    assert stop.verify(c, NOW, plan)
    assert stop.undo(c, NOW, plan.saved).outcome is Outcome.UNCHANGED


def test_undo_leaves_a_later_stop_by_somebody_else_alone(world, call) -> None:
    c = call(world.daemon, world.run())
    plan = stop.plan(c, NOW)
    stop.act(c, NOW, plan)
    world.daemon.start(c.container_id)
    world.daemon.stop(c.container_id, 0)
    assert stop.undo(c, NOW, plan.saved).outcome is Outcome.UNCHANGED
    assert not world.daemon.inspect(c.container_id).running


def test_a_container_to_be_removed_by_docker_is_told(call) -> None:
    daemon = FakeDaemon()
    assert "--rm" in stop.plan(call(daemon, daemon.add(auto_remove=True)), NOW).reason


def test_a_restarting_container_is_stopped_too(call) -> None:
    daemon = FakeDaemon()
    assert stop.plan(call(daemon, daemon.add(running=False, restarting=True)), NOW).change


def test_a_kill_that_takes_too_long_is_a_timeout(call, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add(paused=True), deadline=time.monotonic() + 0.05)
    monkeypatch.setattr(daemon, "kill", lambda id: None)
    with pytest.raises(DaemonTimeout):
        stop.act(c, NOW, stop.plan(c, NOW))


@pytest.mark.parametrize("timeout", ["10m", "-1s", 10, "soon"])
def test_odd_timeouts_are_refused(timeout: object) -> None:
    with pytest.raises(ValidationError):
        stop.parameters(timeout=timeout)


@pytest.mark.docker
def test_always_stays_stopped(docker_world, call) -> None:
    c = call(docker_world.daemon, docker_world.run(restart="always"))
    plan = stop.plan(c, NOW)
    stop.act(c, NOW, plan)
    time.sleep(1)
    assert stop.verify(c, NOW, plan)


@pytest.mark.docker
def test_a_paused_container_never_runs_again(docker_world, call) -> None:
    """With Docker's own stop it would run for the whole timeout."""
    c = call(docker_world.daemon, docker_world.run(command=COUNTING))
    time.sleep(0.2)
    docker_world.daemon.pause(c.container_id)
    before = docker_world.daemon.logs(c.container_id, 1, 1000, c.deadline).content
    polite = stop.parameters(timeout="5s")
    plan = stop.plan(c, polite)
    assert stop.act(c, polite, plan).outcome is Outcome.CHANGED
    assert stop.verify(c, polite, plan)
    after = docker_world.daemon.logs(c.container_id, 1, 1000, c.deadline).content
    assert b"asked" not in after
    assert int(after.split()[-1]) - int(before.split()[-1]) <= 1
