"""How a running Tocsin is: asks every process and the store, and says what is not well. Owns no fact of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tocsin import link, processes, running
from tocsin.errors import TocsinError
from tocsin.settings import Settings
from tocsin.storage import open_store

TIMEOUT_S = 3.0
SLOW_SINK_LAG = 50_000
"""Records a sink may be behind before it counts as not well, even while it moves."""


def ask(settings: Settings) -> dict[str, Any]:
    """{"ok", "problems": [str], "notes": [str], "supervisor", "processes": {name: {...}}, "store"}.

    A problem is what someone must mend; a note is what one should know.
    """
    supervisor = running.read_state(settings.paths.run_dir)
    children = (supervisor or {}).get("processes", {})
    found: dict[str, Any] = {
        "supervisor": _supervisor(supervisor),
        "processes": {name: _process(settings, name, children.get(name)) for name in processes.names()},
        "store": _store(settings),
    }
    problems, notes = list(_problems(found)), list(_notes(found))
    return {"ok": not problems, "problems": problems, "notes": notes, **found}


def _supervisor(state: dict[str, Any] | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {"pid": state["pid"], "uptime_s": round(time.time() - state["started_at"], 1), "ready_s": state["ready_s"]}


def _process(settings: Settings, name: str, child: dict[str, Any] | None) -> dict[str, Any]:
    answer, problem = _status(settings, name)
    known = child or {}
    return {
        "answers": answer is not None,
        "problem": problem,
        "state": known.get("state", "running" if answer is not None else "down"),
        "pid": known.get("pid"),
        "user": running.user_of(known.get("pid")),
        "uptime_s": round(time.time() - known["started_at"], 1) if known.get("pid") else None,
        "restarts": known.get("restarts"),
        "last_exit": known.get("last_exit"),
        "status": answer,
    }


def _status(settings: Settings, name: str) -> tuple[dict[str, Any] | None, str]:
    client = link.Client(settings.socket(name), TIMEOUT_S)
    try:
        answer: dict[str, Any] = client.get("/status").decoded()
        return answer, ""
    except TocsinError as e:
        return None, str(e)
    finally:
        client.close()


def _store(settings: Settings) -> dict[str, Any]:
    store = open_store(settings)
    try:
        found = store.status()
    finally:
        store.close()
    return {
        "kind": found.kind, "place": found.place, "reachable": found.reachable, "problem": found.problem,
        "documents": found.documents, "size_bytes": found.size_bytes, "oldest": found.oldest, "newest": found.newest,
        "version": found.version, "features": dict(found.features), "removed": dict(found.removed),
    }  # fmt: skip


def _problems(found: dict[str, Any]) -> Iterator[str]:
    answering = {name: p for name, p in found["processes"].items() if p["answers"]}
    if not answering:
        hidden = next((p["problem"] for p in found["processes"].values() if "no permission" in p["problem"]), "")
        yield hidden or "Tocsin does not run: start it with `tocsin up`"
    else:
        for name, process in found["processes"].items():
            if not process["answers"]:
                yield f"{name} does not answer: {process['problem']}"
    if not found["store"]["reachable"]:
        yield f"the store {found['store']['place']} does not answer: {found['store']['problem']}"
    for name, process in answering.items():
        yield from _SPECIAL[name](process["status"])


def _sensor(status: dict[str, Any]) -> Iterator[str]:
    for reason in status["degraded"]:
        yield f"sensor: {reason}"
    if status["trouble"]:
        yield f"sensor: {status['queued']} events wait: {status['trouble']}"
    if not status["docker"]["connected"]:
        yield f"sensor: no Docker: {status['docker']['detail']}; containers have no names"


def _forwarder(status: dict[str, Any]) -> Iterator[str]:
    if status["trouble"]:
        yield f"forwarder: {status['trouble']}"
    for sink, topics in status["sinks"].items():
        for topic, lane in topics.items():
            if lane["state"] in {"retrying", "stopped"} and lane["lag"]:
                text = (lane["error"] or {}).get("text", "no reason given")
                yield f"forwarder: {sink} is {lane['lag']} {topic} behind: {text}"
            elif lane["lag"] > SLOW_SINK_LAG:
                yield f"forwarder: {sink} is {lane['lag']} {topic} behind"
    for sink, letters in status["dead_letters"].items():
        if letters["kept"]:
            reason = letters["last_reason"]
            yield f"forwarder: {letters['kept']} dead letters of {sink} (tocsin resend {sink}), the last: {reason}"


def _correlator(status: dict[str, Any]) -> Iterator[str]:
    if not status["ready"]:
        yield "correlator: it waits for the forwarder to deliver what it has missed"
    if status["pending_alerts"]:
        yield f"correlator: {status['pending_alerts']} alerts wait for the forwarder"
    if status["refused_alerts"] or status["failed"]:
        refused, failed = status["refused_alerts"], status["failed"]
        yield f"correlator: {refused} alerts were refused, {failed} events could not be judged; see its log"


def _playbooks(status: dict[str, Any]) -> Iterator[str]:
    if status["halted_by"]:
        yield f"playbooks: everything is halted by {status['halted_by']}; go on with: tocsin resume"
    if status["undos"].get("failed"):
        yield f"playbooks: {status['undos']['failed']} undos failed; see `tocsin undo list --all`"
    if status["outbox"].get("dead"):
        yield f"playbooks: {status['outbox']['dead']} messages could not be delivered; see `tocsin outbox list`"
    if status["hanging_calls"]:
        yield f"playbooks: {status['hanging_calls']} calls hang"


_SPECIAL = {"sensor": _sensor, "forwarder": _forwarder, "correlator": _correlator, "playbooks": _playbooks}


def _notes(found: dict[str, Any]) -> Iterator[str]:
    for name, process in found["processes"].items():
        if process["restarts"]:
            yield f"{name} was started again {process['restarts']} times, the last end was {process['last_exit']}"
        if process["status"]:
            yield from _NOTES.get(name, lambda _: iter(()))(process["status"])


def _sensor_notes(status: dict[str, Any]) -> Iterator[str]:
    if status["lost"]:
        yield f"sensor: {status['lost']} events were lost since it started"


def _forwarder_notes(status: dict[str, Any]) -> Iterator[str]:
    for sink, topics in status["sinks"].items():
        lost = sum(lane["lost"] for lane in topics.values())
        if lost:
            yield f"forwarder: {lost} records never reached {sink}"


_UNJUDGED = {
    "malformed": "records were no events",
    "missing": "events were lost before they could be judged",
    "evicted": "windows or groups were given up for want of room",
    "late": "events came too late for their window",
    "undecided": "events were cut where a rule looks, and no rule could tell",
}
"""Counters of the correlator that are 0 when every event was judged as it should be."""


def _correlator_notes(status: dict[str, Any]) -> Iterator[str]:
    for name, meaning in _UNJUDGED.items():
        if status.get(name):
            yield f"correlator: {status[name]} {meaning} ({name})"


def _playbooks_notes(status: dict[str, Any]) -> Iterator[str]:
    waiting = status["approvals"].get("pending")
    if waiting:
        yield f"playbooks: {waiting} approvals wait for a person; see `tocsin approve`"


_NOTES = {
    "sensor": _sensor_notes,
    "forwarder": _forwarder_notes,
    "correlator": _correlator_notes,
    "playbooks": _playbooks_notes,
}
