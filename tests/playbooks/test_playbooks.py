"""The process as others see it: its socket, its events, and its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scene import Scene, alert, until

from ecs_mappings import template as contract
from ecs_mappings.event import decode, encode
from playbooks.document import Mode
from tocsin import link
from tocsin.errors import Rejected, RetryLater

TEXT = (
    "name: one\nmatch: {rules: [shell]}\nsteps:\n"
    "  - {id: t, uses: probe.touch, with: {file: FILE}, undo: {after: 1h}}\n"
    "  - {id: ask, uses: probe.post, approve: {timeout: 1h}}\n"
)


def over_the_socket(s: Scene, path: Path, ask: Callable[[link.Client], Any]) -> Any:
    def asked() -> Any:
        client = link.Client(path)
        try:
            return ask(client)
        finally:
            client.close()

    async def serve() -> Any:
        async with link.serving(path, s.core.routes()):
            return await asyncio.to_thread(asked)

    return asyncio.run(serve())


def test_everything_can_be_asked_over_the_socket(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")))

    def ask(client: link.Client) -> None:
        body = encode(alert()) + b"\n"
        for begun in (1, 0):
            reply = client.post("/alerts", body, {link.OFFSET_HEADER: "0"}).decoded()
            assert reply == {"taken": 1, "begun": begun}
        until(lambda: client.get("/runs?state=waiting").decoded())
        (run,) = client.get("/runs").decoded()
        assert "alert" not in run
        shown = client.get(f"/runs/{run['id']}").decoded()
        assert [x["step_id"] for x in shown["steps"]] == ["t", "ask"]
        assert shown["alert"]["rule"]["id"] == "r-1"
        (approval,) = client.get("/approvals?state=pending").decoded()
        assert client.post(f"/approvals/{approval['id']}?decision=approve&by=ann").decoded()["state"] == "approved"
        until(lambda: client.get("/runs?state=done").decoded())
        until(lambda: client.get("/outbox?state=delivered").decoded())
        assert [u["state"] for u in client.get("/undos").decoded()] == ["armed"]
        assert [u["state"] for u in client.post(f"/undo/{run['id']}?by=ann").decoded()] == ["done"]
        assert client.post("/halt?by=ann").decoded() == {"halted_by": "ann"}
        status = client.get("/status").decoded()
        assert status["halted_by"] == "ann" and status["runs"] == {"done": 1}
        assert client.post("/resume?by=ann").decoded() == {"halted_by": None}
        for method, path in [
            (client.get, "/runs/none"), (client.get, "/runs?limit=x"), (client.get, "/runs?limit=0"),
            (client.post, "/approvals/none?decision=approve"), (client.post, "/undo/none"),
            (client.post, f"/approvals/{approval['id']}?decision=maybe"), (client.post, "/outbox/none"),
        ]:  # fmt: skip
            with pytest.raises(Rejected):
                method(path)

    over_the_socket(s, tmp_path / "playbooks.sock", ask)


def test_every_response_is_a_legal_event(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")))
    run = s.run_of(alert())
    s.core._undoer.now(run.id, "ann")
    events = s.responses(3)
    assert [e.event.action for e in events] == ["probe.touch", "approval_requested", "probe.touch"]
    assert len({e.event.id for e in events}) == 3
    legal = set(contract.field_paths())
    for event in events:
        assert decode(encode(event)) == event
        assert event.event.dataset == "tocsin.response" and event.tocsin.playbook.alert_id
        assert event.event.duration >= 0
    assert "tocsin.playbook.undo_of" in legal


def test_events_wait_for_the_forwarder_and_are_not_lost(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")))
    away = threading.Event()
    away.set()

    def emit(lines: Sequence[bytes]) -> None:
        if away.is_set():
            raise RetryLater("nobody listens")
        s.emitted.extend(map(decode, lines))

    s.emit = emit
    s.run_of(alert())
    s.restart()
    assert not s.emitted and s.core.status()["responses"]["waiting"] == 2
    away.clear()
    s.responses(2)
    s.close()
    s.open()
    assert len({e.event.id for e in s.emitted}) == len(s.emitted) == 2


def test_one_event_that_is_refused_holds_up_no_other(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")))

    def emit(lines: Sequence[bytes]) -> None:
        events = [decode(line) for line in lines]
        if any(e.event.action == "probe.touch" for e in events):
            raise Rejected("too odd")
        s.emitted.extend(events)

    s.emit = emit
    s.run_of(alert())
    until(lambda: [e.event.action for e in s.emitted] == ["approval_requested"])
    until(lambda: s.core.status()["responses"]["refused"] == 1)


def test_disabled_is_no_run_at_all(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")), ceiling=Mode.DISABLED)
    assert s.take(alert()) == 0 and not s.ledger.runs(1)


def test_stopping_takes_nothing_more_and_a_step_in_the_middle_ends(scene: Callable[..., Scene], tmp_path: Path) -> None:
    text = TEXT.replace("FILE}", f"{tmp_path / 'effect'}, hang_s: 0.3}}")
    s = scene(text)
    s.take(alert())
    until(lambda: s.ledger.undos())
    s.core.stop(5)
    with pytest.raises(RetryLater):
        s.take(alert())
    assert (tmp_path / "effect.log").read_text() == "act\n"
    s.open()
    until(lambda: s.ledger.approvals(state="pending"))
    assert (tmp_path / "effect.log").read_text() == "act\n"


def test_a_step_that_has_looked_but_not_claimed_is_halted_too(
    scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")))
    monkeypatch.setattr(s.core._runner._steps, "permit", lambda *_: s.core._switch.halt("ann"))
    run = s.run_of(alert())
    assert s.steps(run)["t"].outcome == "denied"
    assert not (tmp_path / "effect").exists() and not s.ledger.undos()


def test_old_runs_are_forgotten_while_it_runs(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbooks.playbooks.FORGET_EVERY_S", 0.05)
    s = scene("name: one\nmatch: {rules: [shell]}\nsteps: [{id: tell, uses: probe.post}]\n")
    s.run_of(alert())
    until(lambda: s.ledger.messages("delivered"))
    assert s.ledger.runs(1)
    monkeypatch.setattr("playbooks.playbooks.KEEP_S", 0.0)
    until(lambda: not s.ledger.runs(1) and not s.ledger.messages("delivered"))
    assert s.ledger.audit_rows()
