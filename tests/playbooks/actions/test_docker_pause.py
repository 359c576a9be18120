from __future__ import annotations

import time

import pytest

from playbooks.action import Outcome, Plan, load
from playbooks.daemon import CpuLimit, Refused
from playbooks.daemon_fake import FakeDaemon
from tocsin.errors import RetryLater

pause = load("docker.pause")
P = pause.parameters()
BUSY = "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait"


def run_step(call) -> Plan:
    plan = pause.plan(call, P)
    assert plan.change
    assert pause.act(call, P, plan).outcome is Outcome.CHANGED
    assert pause.verify(call, P, plan)
    return plan


def test_pauses_and_undoes(world, call) -> None:
    c = call(world.daemon, world.run())
    plan = run_step(c)
    assert world.daemon.inspect(c.container_id).paused
    assert pause.undo(c, P, plan.saved).outcome is Outcome.CHANGED
    assert not world.daemon.inspect(c.container_id).paused
    assert pause.undo(c, P, plan.saved).outcome is Outcome.UNCHANGED


def test_nothing_to_do_is_no_change(world, call) -> None:
    paused, stopped, removed = world.run(), world.run(), world.run()
    world.daemon.pause(paused)
    world.daemon.stop(stopped, 0)
    world.remove(removed)
    for id, reason in ((paused, "paused already"), (stopped, "not running"), (removed, "gone")):
        plan = pause.plan(call(world.daemon, id), P)
        assert not plan.change and reason in plan.reason


def test_what_ends_between_plan_and_act_is_unchanged(world, call) -> None:
    for end in (lambda id: world.daemon.stop(id, 0), world.remove):
        c = call(world.daemon, world.run())
        plan = pause.plan(c, P)
        end(c.container_id)
        assert pause.act(c, P, plan).outcome is Outcome.UNCHANGED
        assert pause.undo(c, P, plan.saved).outcome is Outcome.UNCHANGED


def test_a_pause_by_somebody_else_meanwhile_is_as_good(world, call) -> None:
    c = call(world.daemon, world.run())
    plan = pause.plan(c, P)
    world.daemon.pause(c.container_id)
    assert pause.act(c, P, plan).outcome is Outcome.CHANGED
    assert pause.verify(c, P, plan)


def test_undo_leaves_the_pause_of_a_later_run_alone(world, call) -> None:
    c = call(world.daemon, world.run())
    plan = run_step(c)
    world.daemon.stop(c.container_id, 0)
    world.daemon.start(c.container_id)
    world.daemon.pause(c.container_id)
    assert pause.undo(c, P, plan.saved).outcome is Outcome.UNCHANGED
    assert world.daemon.inspect(c.container_id).paused


@pytest.mark.parametrize("limit", [CpuLimit(nano_cpus=100_000_000), CpuLimit(quota=10_000)])
def test_the_cpu_limit_is_as_before(world, call, limit: CpuLimit) -> None:
    c = call(world.daemon, world.run(nano_cpus=limit.nano_cpus, quota=limit.quota))
    plan = run_step(c)
    assert world.daemon.inspect(c.container_id).cpu == limit
    assert pause.undo(c, P, plan.saved).outcome is Outcome.CHANGED
    assert world.daemon.inspect(c.container_id).cpu == limit


@pytest.mark.parametrize("step", ["pause", "set_cpu_limit"])
def test_a_crash_while_the_limit_is_lifted_is_mended(call, step: str) -> None:
    """The crash is an exception that no action may catch; then the same step is asked again, or undone."""
    limit = CpuLimit(nano_cpus=100_000_000)
    for mend in ("again", "undo"):
        daemon = FakeDaemon()
        c = call(daemon, daemon.add(cpu=limit, busy=True))
        plan = pause.plan(c, P)
        _die_after_lifting(daemon, step)
        with pytest.raises(KeyboardInterrupt):
            pause.act(c, P, plan)
        assert daemon.inspect(c.container_id).cpu == daemon.unthrottled(limit)
        if mend == "again":
            c = call(daemon, c.container_id, saved=plan.saved, attempt=2)
            assert not pause.verify(c, P, plan)
            again = pause.plan(c, P)
            assert again.change
            assert pause.act(c, P, plan).outcome is Outcome.CHANGED
            assert pause.verify(c, P, plan)
        else:
            pause.undo(c, P, plan.saved)
            assert not daemon.inspect(c.container_id).paused
        assert daemon.inspect(c.container_id).cpu == limit


def _die_after_lifting(daemon: FakeDaemon, step: str) -> None:
    """kill -9 right before the pause, or right before the limit is put back: nothing is called after it."""
    whole = daemon.set_cpu_limit

    def lift_only(id: str, limit: CpuLimit) -> None:
        if limit.throttles and limit != daemon.unthrottled(limit):
            daemon.set_cpu_limit = whole  # type: ignore[method-assign]
            raise KeyboardInterrupt
        whole(id, limit)

    daemon.set_cpu_limit = lift_only  # type: ignore[method-assign]
    if step == "pause":
        daemon.fail("pause", KeyboardInterrupt())  # type: ignore[arg-type]


def test_a_limit_that_somebody_has_set_since_stays(call) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add(cpu=CpuLimit(quota=10_000)))
    plan = run_step(c)
    daemon.set_cpu_limit(c.container_id, CpuLimit(quota=5_000))
    assert pause.undo(c, P, plan.saved).outcome is Outcome.CHANGED
    assert daemon.inspect(c.container_id).cpu == CpuLimit(quota=5_000)


def test_a_daemon_that_is_away_means_later_and_a_refusal_is_told(call) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add())
    plan = pause.plan(c, P)
    daemon.fail("pause", RetryLater("away"))
    with pytest.raises(RetryLater):
        pause.act(c, P, plan)
    daemon.fail("pause", Refused("no space left on device"))
    with pytest.raises(Refused, match="no space"):
        pause.act(c, P, plan)
    daemon.fail("pause", Refused("unable to freeze"), Refused("unable to freeze"))
    assert pause.act(c, P, plan).outcome is Outcome.CHANGED


def test_an_ordinary_pause_takes_three_calls(call) -> None:
    daemon = FakeDaemon()
    id = daemon.add()
    run_step(call(daemon, id, seen=daemon.inspect(id)))
    assert [method for method, _ in daemon.calls] == ["inspect", "pause", "inspect"]


@pytest.mark.docker
@pytest.mark.parametrize("limit", [{"nano_cpus": 100_000_000}, {"quota": 10_000}, {"nano_cpus": 50_000_000}])
def test_busy_throttled_containers_are_always_paused(docker_world, call, limit: dict[str, int]) -> None:
    """Docker's own pause fails on three of four of these."""
    c = call(docker_world.daemon, docker_world.run(command=BUSY, **limit))
    before = docker_world.daemon.inspect(c.container_id).cpu
    for _ in range(10):
        time.sleep(0.12)
        plan = run_step(c)
        assert docker_world.daemon.inspect(c.container_id).cpu == before
        assert pause.undo(c, P, plan.saved).outcome is Outcome.CHANGED
