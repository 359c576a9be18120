"""`tocsin status`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from tocsin.cli._options import Config, Json, settings


def status(config: Config = None, as_json: Json = False) -> None:
    """How everything is: processes, what was captured and lost, how far each sink is, what waits for a person.

    Exit 1 if something is not well.

    [bold]Examples:[/] tocsin status
    tocsin status --json | jq .problems
    """
    from tocsin.health import ask
    from tocsin.terminal import print_json

    found = ask(settings(config))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if not found["ok"]:
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    from tocsin.describe import ago
    from tocsin.terminal import print_state, print_table, print_text, state

    rows = (
        (name, state("running" if p["answers"] else p["state"] if p["state"] != "running" else "down"), p["user"],
         p["pid"], "" if p["uptime_s"] is None else ago(p["uptime_s"]), p["restarts"])
        for name, p in found["processes"].items()
    )  # fmt: skip
    print_table(("PROCESS", "STATE", "USER", "PID>", "UP>", "RESTARTS>"), rows)
    for name, process in found["processes"].items():
        if process["status"]:
            for line in _DETAILS[name](process["status"]):
                print_text(f"{name:<10}  {line}")
    print_text(f"{'store':<10}  {_store(found['store'])}")
    for note in found["notes"]:
        print_state("note", note)
    for problem in found["problems"]:
        print_state("fail", problem)
    if found["ok"]:
        print_state("ok", "all is well")


def _store(store: dict[str, Any]) -> str:
    from tocsin.describe import since

    if not store["reachable"]:
        return f"{store['place']} does not answer"
    newest = f", the newest {since(store['newest'])}" if store["newest"] else ""
    return f"{store['kind']} {store['place']}: {store['documents']} documents{newest}"


def _sensor(status: dict[str, Any]) -> Iterator[str]:
    yield (
        f"scope {status['scope']}: captured {status['captured']}, delivered {status['delivered']}, "
        f"queued {status['queued']}, lost {status['lost']}"
    )
    for name, probe in status["probes"].items():
        lost = f", lost {probe['lost']}" if probe["lost"] else ""
        yield f"  probe {name}: captured {probe['captured']}{lost}{'' if probe['attached'] else ', NOT attached'}"
    docker = status["docker"]
    yield f"  Docker: {docker['containers']} containers" if docker["connected"] else f"  Docker: {docker['detail']}"


def _forwarder(status: dict[str, Any]) -> Iterator[str]:
    size = sum(topic["bytes"] for topic in status["topics"].values())
    taken = ", ".join(f"{topic['next']} {name}" for name, topic in status["topics"].items())
    yield f"spool {size >> 20} MiB; taken in all: {taken}"
    for sink, topics in status["sinks"].items():
        for topic, lane in topics.items():
            error = f": {lane['error']['text']}" if lane["error"] else ""
            yield (
                f"  {topic} to {sink}: {lane['state']}, {lane['lag']} behind, delivered {lane['delivered']}, "
                f"rejected {lane['rejected']}, retries {lane['retries']}{error}"
            )
    for sink, letters in status["dead_letters"].items():
        if letters["kept"]:
            yield f"  dead letters of {sink}: {letters['kept']}"


def _correlator(status: dict[str, Any]) -> Iterator[str]:
    fired = {name: counts for name, counts in status["rules"].items() if counts}
    p50, p99 = status["matched_ms"]["p50"], status["matched_ms"]["p99"]
    speed = "" if p50 is None else f"; event to alert p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    yield (
        f"{status['rules_loaded']} rules, {status['events']} events judged, {status['open_groups']} open groups, "
        f"next offset {status['next_offset']}{speed}"
    )
    for name, counts in fired.items():
        yield f"  {name}: {', '.join(f'{n} {what}' for what, n in counts.items())}"


def _playbooks(status: dict[str, Any]) -> Iterator[str]:
    armed, asked = status["undos"].get("armed", 0), status["approvals"].get("pending", 0)
    yield (
        f"{len(status['playbooks'])} playbooks, ceiling {status['mode_ceiling']}; runs: {_counts(status['runs'])}; "
        f"{armed} undos armed, {asked} approvals waiting"
    )
    taken = status["alerts"]["taken"]
    yield f"  alerts taken {taken}, backlog {status['backlog']}; outbox: {_counts(status['outbox'])}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in counts.items()) or "none"


_DETAILS = {"sensor": _sensor, "forwarder": _forwarder, "correlator": _correlator, "playbooks": _playbooks}
