from __future__ import annotations

import pytest

from playbooks.action import Outcome, load
from playbooks.daemon import Refused
from playbooks.daemon_fake import FakeDaemon
from tocsin.errors import RetryLater, TocsinError

disconnect = load("docker.disconnect")
ALL = disconnect.parameters()


@pytest.mark.parametrize("paused", [False, True])
def test_takes_it_off_all_networks_and_back(world, call, free_subnet: str, paused: bool) -> None:
    id, network = world.run(), world.network(f"{free_subnet}.0/24")
    world.attach(id, network, aliases=("web",), address=f"{free_subnet}.7")
    if paused:
        world.daemon.pause(id)
    before = world.daemon.inspect(id).networks
    c = call(world.daemon, id)
    plan = disconnect.plan(c, ALL)
    assert plan.change
    assert not disconnect.verify(c, ALL, plan)
    result = disconnect.act(c, ALL, plan)
    assert result.outcome is Outcome.CHANGED
    assert sorted(result.data["disconnected"]) == sorted(before)
    assert disconnect.verify(c, ALL, plan)
    assert not disconnect.plan(c, ALL).change
    assert disconnect.undo(c, ALL, plan.saved).outcome is Outcome.CHANGED
    assert world.daemon.inspect(id).networks == before
    assert disconnect.undo(c, ALL, plan.saved).outcome is Outcome.UNCHANGED


def test_named_networks_only(world, call) -> None:
    id, network = world.run(), world.network()
    world.attach(id, network)
    c = call(world.daemon, id)
    for name in (network, next(a.name for a in world.daemon.inspect(id).networks.values() if a.id == network)):
        p = disconnect.parameters(networks=[name])
        plan = disconnect.plan(c, p)
        disconnect.act(c, p, plan)
        assert disconnect.verify(c, p, plan)
        assert list(world.daemon.inspect(id).networks) == ["bridge"]
        disconnect.undo(c, p, plan.saved)
    other = disconnect.plan(c, disconnect.parameters(networks=["elsewhere"]))
    assert not other.change and "none of these" in other.reason


def test_a_network_joined_meanwhile_is_not_verified(world, call) -> None:
    c = call(world.daemon, world.run())
    plan = disconnect.plan(c, ALL)
    disconnect.act(c, ALL, plan)
    world.attach(c.container_id, world.network())
    assert not disconnect.verify(c, ALL, plan)


def test_host_and_shared_networks_say_why_not(world, call) -> None:
    shared = f"container:{world.run()}"
    for mode, reason in (("host", "host's own network"), (shared, "network of the container")):
        with pytest.raises(TocsinError, match=reason):
            disconnect.plan(call(world.daemon, world.run(network_mode=mode)), ALL)
    plan = disconnect.plan(call(world.daemon, world.run(network_mode="none")), ALL)
    assert not plan.change and "no network" in plan.reason


def test_gone_before_during_and_after(world, call) -> None:
    c = call(world.daemon, world.run())
    plan = disconnect.plan(c, ALL)
    world.remove(c.container_id)
    assert disconnect.act(c, ALL, plan).outcome is Outcome.UNCHANGED
    assert disconnect.undo(c, ALL, plan.saved).outcome is Outcome.UNCHANGED
    assert not disconnect.plan(c, ALL).change


def test_a_part_that_fails_is_told_and_undone(call) -> None:
    daemon = FakeDaemon(networks={"b" * 64: "bridge", "c" * 64: "back"})
    id = daemon.add()
    daemon.connect(id, daemon.inspect(id).networks["bridge"].__class__("c" * 64, "back", {"Aliases": ["db"]}))
    c = call(daemon, id)
    before = daemon.inspect(id).networks
    plan = disconnect.plan(c, ALL)
    daemon.fail("disconnect", Refused("endpoint is in use"))
    result = disconnect.act(c, ALL, plan)
    assert result.outcome is Outcome.FAILED
    assert result.data == {"disconnected": ["back"], "refused": {"bridge": "endpoint is in use"}}
    assert not disconnect.verify(c, ALL, plan)
    assert disconnect.undo(c, ALL, plan.saved).outcome is Outcome.CHANGED
    assert daemon.inspect(id).networks == before
    daemon.fail("disconnect", RetryLater("away"))
    with pytest.raises(RetryLater):
        disconnect.act(c, ALL, plan)
    assert disconnect.act(c, ALL, plan).outcome is Outcome.CHANGED


def test_repeating_after_a_crash_finds_its_own_work(call) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add())
    plan = disconnect.plan(c, ALL)
    for _ in range(2):
        assert disconnect.act(c, ALL, plan).outcome is Outcome.CHANGED


def test_a_network_that_was_removed_fails_its_undo_and_no_other(call) -> None:
    daemon = FakeDaemon(networks={"b" * 64: "bridge", "c" * 64: "back"})
    id = daemon.add()
    daemon.connect(id, daemon.inspect(id).networks["bridge"].__class__("c" * 64, "back", {}))
    c = call(daemon, id)
    plan = disconnect.plan(c, ALL)
    disconnect.act(c, ALL, plan)
    del daemon.networks["b" * 64]
    result = disconnect.undo(c, ALL, plan.saved)
    assert result.outcome is Outcome.FAILED
    assert result.data["reconnected"] == ["back"] and "not found" in result.data["refused"]["bridge"]
