"""The demo from beginning to end: start, everyday work, attacks, answers, undo, verdict. Owns the order of things."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from msgspec import UNSET

from ecs_mappings.event import Event
from playbooks import evidence
from playbooks.records import delivery_id
from tocsin.demo import timeline
from tocsin.demo.report import Report
from tocsin.demo.scene import Attack, Scene
from tocsin.demo.show import Show
from tocsin.demo.timeline import Line, Step
from tocsin.errors import TocsinError
from tocsin.lab import Lab, responses
from tocsin.lab.instance import Instance
from tocsin.lab.receiver import Receiver
from tocsin.lab.tail import Tail
from tocsin.storage import opened

CALM_S = 2.0
"""The containers only do their work this long; any alert then is a false one."""
ANSWER_TIMEOUT_S = 20.0
"""From an attack to the last step of every playbook that answers it."""
NAMESPACE = "demo"


def tell(show: Show, store_url: str, keep: bool) -> Report:
    """Runs the demo. `keep` leaves its containers and directory for a look; the next demo removes them."""
    begun = datetime.now(UTC)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        lab = stack.enter_context(Lab(keep=keep))
        tocsin = Instance(
            {"store": {"url": store_url, "namespace": NAMESPACE}},
            responses.secrets(receiver),
            playbooks=responses.scoped(lab.run),
            keep=keep,
        )
        stack.push(tocsin)  # started below; stopped and removed in any case
        with opened(tocsin.settings):
            show.say("starting a web server, a worker that uses it, and an attacker beside them")
        scene = Scene(lab)
        stack.callback(scene.close)
        show.names = {container.name: short for short, container in scene.containers().items()}
        show.say(f"starting Tocsin on its own: state in {tocsin.directory}, store {store_url}")
        tocsin.start()
        show.say(f"ready after {tocsin.started_s:.1f} s")
        report = _Story(show, scene, tocsin, receiver, begun).run()
        show.say("everything is kept" if keep else "removing what the demo made, and only that")
    return report


class _Story:
    def __init__(self, show: Show, scene: Scene, tocsin: Instance, receiver: Receiver, begun: datetime) -> None:
        self._show = show
        self._scene = scene
        self._tocsin = tocsin
        self._receiver = receiver
        self._store = tocsin.store()
        self._tail = Tail(self._store, begun)
        self._names = {container.name for container in scene.containers().values()}
        self._report = Report()

    def run(self) -> Report:
        self._show.say(f"{CALM_S:g} s of everyday work, which must raise no alert")
        self._watch(lambda: False, CALM_S)
        for begin in (self._scene.scan, self._scene.open_shell, self._scene.call_home):
            self._attack(begin)
        self._look("after the answers", web="paused", worker_has_network=False)
        self._undo()
        self._look("after the undo", web="running", worker_has_network=True)
        self._sum_up()
        self._store.close()
        return self._report

    def _attack(self, begin: Callable[[], Attack]) -> None:
        attack = begin()
        self._report.expected = [*self._report.expected, attack]
        self._show.say(f"ATTACK  {attack.text}")
        if not self._watch(lambda: self._is_answered(attack), ANSWER_TIMEOUT_S):
            self._report.reasons.append(f"{attack.rule} was not answered within {ANSWER_TIMEOUT_S:g} s")

    def _is_answered(self, attack: Attack) -> bool:
        """Its alert is there, each run that it started has ended, and each step is in the store and was verified."""
        lines = [line for line in self._lines() if (line.rule, line.container) == (attack.rule, attack.container)]
        steps = {(step.run_id, step.name) for line in lines for step in line.steps if step.verified}
        runs = [run for run in self._get("/runs") if run["alert_id"] in {line.id for line in lines}]
        return (
            bool(runs)
            and all(run["state"] in ("done", "failed") for run in runs)
            and all((run["id"], step["step_id"]) in steps for run in runs for step in self._steps(run["id"]))
        )

    def _undo(self) -> None:
        """As a person would with `tocsin undo now`."""
        armed = [undo["run_id"] for undo in self._get("/undos?state=armed")]
        for run_id in sorted(set(armed)):
            self._show.say(f"UNDO    run {run_id}")
            with self._tocsin.client("playbooks", timeout_s=30) as client:
                client.post(f"/undo/{run_id}")
        if not self._watch(lambda: sum(len(x.undone) for x in self._lines()) >= len(armed), ANSWER_TIMEOUT_S):
            self._report.reasons.append(f"not every step was undone within {ANSWER_TIMEOUT_S:g} s")

    def _look(self, when: str, *, web: str, worker_has_network: bool) -> None:
        """Docker's own word, beside what Tocsin says of itself."""
        status, connected = self._scene.web.status(), bool(self._scene.worker.networks())
        self._show.say(f"Docker says: the web server is {status}, the worker has {'a' if connected else 'no'} network")
        if status != web:
            self._report.reasons.append(f"{when} the web server is {status}, not {web}")
        if connected != worker_has_network:
            self._report.reasons.append(f"{when} the worker has {'a' if connected else 'no'} network")

    def _sum_up(self) -> None:
        self._tail.poll(whole=True)
        events = self._tail.events
        messages = self._receiver.received
        unsigned = sum(not message.signed for message in messages)
        taken = [message.id for message in self._receiver.accepted()]
        report = self._report
        report.lines = self._lines()
        report.events = len(events)
        report.lost = sum(map(_lost, events))
        report.webhooks = len(set(taken))
        if unsigned:
            report.reasons.append(f"{unsigned} messages were not rightly signed")
        if len(taken) != len(set(taken)):
            report.reasons.append(f"{len(taken) - len(set(taken))} messages arrived more than once")
        if len(set(taken)) < len(report.expected):
            report.reasons.append(f"{len(set(taken))} messages arrived for {len(report.expected)} alerts")

    def _watch(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Shows what becomes known until `done`; False after `timeout_s`."""

        def step() -> bool:
            self._show.update(self._lines())
            return done()

        return self._tail.until(step, timeout_s)

    def _lines(self) -> list[Line]:
        lines = timeline.read(self._tail.events, self._tocsin.stored(), self._proof)
        return [line for line in lines if line.container in self._names]

    def _proof(self, step: Step) -> float | None:
        """Our own look at what a step did outside of containers: a message that arrived, evidence that is whole."""
        if step.action == "webhook.post":
            id = delivery_id(step.run_id, step.name)
            return next(
                (message.at for message in self._receiver.accepted() if message.id == id and message.signed), None
            )
        if step.action == "docker.collect":
            target = self._tocsin.settings.state("playbooks") / "evidence" / step.run_id / step.name
            return None if evidence.check(target) else (target / evidence.MANIFEST).stat().st_mtime
        return None

    def _steps(self, run_id: str) -> list[dict[str, Any]]:
        return [step for run in self._get(f"/runs/{run_id}") for step in run["steps"]]

    def _get(self, path: str) -> list[dict[str, Any]]:
        """What the playbooks answer; a single object as a list of one. Nothing while they do not answer."""
        try:
            with self._tocsin.client("playbooks") as client:
                found: Any = client.get(path).decoded()
        except TocsinError:
            return []
        return found if isinstance(found, list) else [found]


def _lost(event: Event) -> int:
    loss = event.tocsin.loss if event.tocsin else UNSET
    return (loss.count or 1) if loss else 0
