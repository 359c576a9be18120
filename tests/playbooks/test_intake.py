"""Claims, cooldown, concurrency and limits: an alert starts a playbook at most once, and only when it may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from scene import Scene, alert, until, written

from ecs_mappings.event import Container, Process, Rule, encode
from playbooks.document import Mode
from playbooks.intake import Intake
from playbooks.ledger import Ledger
from playbooks.schema import SHIPPED
from tocsin.errors import RetryLater

POST = "steps: [{id: tell, uses: probe.post}]\n"
ONE = "name: one\nmatch: {rules: [shell]}\n" + POST
TWO = "name: two\nmatch: {severity: '>=high'}\n" + POST
OFF = "name: off-duty\nmode: disabled\nmatch: {rules: [shell]}\n" + POST


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=8), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_and_repetition_of_deliveries_gives_one_run_each(
    tmp_path_factory: pytest.TempPathFactory, deliveries: list[list[int]], restart: bool
) -> None:
    directory = tmp_path_factory.mktemp("claims")
    made = written(directory / "playbooks", ONE, TWO, OFF)
    alerts = [encode(alert(f"a{n}")) for n in range(5)]
    ledger = Ledger(directory)
    begun = []
    for number, delivery in enumerate(deliveries):
        begun += Intake(ledger, made, Mode.ENFORCE).take([alerts[n] for n in delivery])
        if restart and number % 2:
            ledger.close()
            ledger = Ledger(directory)
    expected = {(f"a{n}", name) for d in deliveries for n in d for name in ("one", "two")}
    assert sorted((b.run.alert_id, b.run.playbook) for b in begun) == sorted(expected)
    assert {(r.alert_id, r.playbook) for r in ledger.runs(1000)} == expected
    ledger.close()


def test_another_revision_does_not_answer_the_same_alert_again(scene: Callable[..., Scene]) -> None:
    s = scene(ONE)
    first = alert()
    assert s.run_of(first).revision
    s.close()
    s.texts = (ONE + "description: changed\n",)
    s.open()
    assert s.take(first) == 0


def test_a_line_that_is_no_event_is_counted_and_harms_nobody_else(scene: Callable[..., Scene]) -> None:
    s = scene(ONE)
    assert s.core.take([b"{", b'{"event": 7}', encode(alert()), b"\xff"]) == 1
    assert s.core.status()["alerts"] == {"taken": 4, "malformed": 3}


def test_cooldown_is_recorded_and_survives_a_restart(scene: Callable[..., Scene]) -> None:
    s = scene(ONE + "cooldown: {key: '{{ rule.id }}:{{ container.id }}', for: 1h}\n")
    assert s.run_of(alert()).state == "done"
    assert s.run_of(alert()).state == "suppressed"
    s.restart()
    run = s.run_of(alert())
    assert (run.state, "cooldown" in run.reason) == ("suppressed", True)
    assert s.run_of(alert(container=Container(id="d" * 64))).state == "done"
    until(lambda: [e for e in s.emitted if e.event.action == "suppressed"])


def test_padding_does_not_make_two_keys_equal(scene: Callable[..., Scene]) -> None:
    s = scene(ONE + "cooldown: {key: '{{ process.name }}:{{ container.id }}', for: 1h}\n")
    padded = Process(name="x" * 2000)
    assert s.run_of(alert(process=padded)).state == "done"
    assert s.run_of(alert(process=padded)).state == "suppressed"
    assert s.run_of(alert(process=padded, container=Container(id="d" * 64))).state == "done"


def test_many_alerts_of_one_rule_and_container_are_one_message(scene: Callable[..., Scene]) -> None:
    """A receiver takes one a second: a flood would keep the alert that matters waiting."""
    s = scene((SHIPPED / "notify.yml").read_text().replace("mode: disabled", "mode: enforce"))
    s.take(*(alert() for _ in range(20)), alert(rule=Rule(id="r-2")), alert(container=UNSET))
    s.settle()
    assert len([r for r in s.ledger.runs(100) if r.state == "done"]) == 3
    assert len(s.ledger.runs(100)) == 22


def test_a_cooldown_of_an_alert_that_came_again_is_not_renewed(scene: Callable[..., Scene]) -> None:
    s = scene(ONE + "cooldown: {key: x, for: 300ms}\n")
    first = alert()
    s.run_of(first)
    until(lambda: s.take(first) == 0 and s.run_of(alert()).state == "done")


def test_a_key_that_cannot_be_filled_in_starts_nothing(scene: Callable[..., Scene]) -> None:
    s = scene(ONE + "concurrency: {key: '{{ user.name }}'}\n")
    run = s.run_of(alert())
    assert (run.state, "user.name is absent" in run.reason) == ("suppressed", True)


@pytest.mark.parametrize(("when_busy", "state"), [("drop", "suppressed"), ("merge", "merged"), ("queue", "queued")])
def test_concurrency(scene: Callable[..., Scene], tmp_path: Path, when_busy: str, state: str) -> None:
    text = (
        "name: one\nmatch: {rules: [shell]}\n"
        f"concurrency: {{key: '{{{{ container.id }}}}', when_busy: {when_busy}}}\n"
        f"steps: [{{id: t, uses: probe.touch, with: {{file: {tmp_path}/x}}, approve: {{timeout: 1h}}}}]\n"
    )
    s = scene(text)
    first = s.run_of(alert())
    assert first.state == "waiting"
    second, third = (s.run_of(alert()) for _ in range(2))
    assert second.state == third.state == state
    assert first.id in second.reason
    other = s.run_of(alert(container=Container(id="d" * 64)))
    assert other.state == "done" and "gone" in s.steps(other)["t"].reason
    s.core._approvals.decide(s.ledger.approvals(state="pending")[0].id, "deny", "ann")
    if when_busy == "queue":
        until(lambda: s.ledger.run(second.id).state == "waiting")  # type: ignore[union-attr]
        assert s.ledger.run(third.id).state == "queued"  # type: ignore[union-attr]
        s.restart()
        assert s.ledger.run(third.id).state == "queued"  # type: ignore[union-attr]
        s.core._approvals.decide(s.ledger.approvals(state="pending")[0].id, "deny", "ann")
        until(lambda: s.ledger.run(third.id).state == "waiting")  # type: ignore[union-attr]


def test_beyond_its_limits_every_change_needs_approval(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(
        "name: one\nmatch: {rules: [shell]}\nlimits: {max_targets: 2, per: 1h}\n"
        f"steps: [{{id: t, uses: probe.touch, with: {{file: {tmp_path}/x}}}}, {{id: tell, uses: probe.post}}]\n"
    )
    alerts = [alert(container=Container(id=f"{n:064x}")) for n in (1, 1, 2, 3)]
    for a in alerts:
        if a.container.id not in s.daemon.containers:
            s.daemon.add(id=a.container.id, started_at=a.timestamp.replace(year=2020))
    states = []
    for a in alerts:
        run = s.run_of(a)
        states.append((run.tripped, run.state))
        Path(tmp_path / "x").unlink(missing_ok=True)
    assert states == [(False, "done"), (False, "done"), (False, "done"), (True, "waiting")]
    assert "beyond" in s.ledger.approvals()[0].question


def test_too_many_waiting_runs_are_put_off(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    s = scene(ONE)
    monkeypatch.setattr("playbooks.playbooks.MAX_BACKLOG", -1)
    with pytest.raises(RetryLater):
        s.take(alert())
    assert not s.ledger.runs(1)


def test_a_repeat_starts_nothing(scene: Callable[..., Scene]) -> None:
    s = scene(ONE)
    assert s.take(alert(action="repeated")) == 0
    plain = alert()
    assert s.take(msgspec.structs.replace(plain, event=msgspec.structs.replace(plain.event, kind="event"))) == 0
