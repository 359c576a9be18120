"""30 times a shell in a container until the container is paused and verified: percentiles of every hop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tocsin.bench import Figure, percentile
from tocsin.demo import timeline
from tocsin.errors import TocsinError
from tocsin.lab import Lab, responses
from tocsin.lab.instance import Instance
from tocsin.lab.receiver import Receiver
from tocsin.lab.tail import Tail

COUNT = 30
TIMEOUT_S = 10.0
P50_MS, P99_MS = 60.0, 150.0
RULE = "interactive-shell-in-container"


def run(count: int | None, store_url: str, say: Callable[[str], None]) -> Sequence[Figure]:
    runs: list[dict[str, float]] = []
    sections = {"store": {"url": store_url, "namespace": "bench"}}
    with (
        Receiver() as receiver,
        Lab() as lab,
        Instance(sections, responses.secrets(receiver), playbooks=responses.scoped(lab.run)) as tocsin,
    ):
        store = tocsin.store()
        for number in range(count or COUNT):
            tail = Tail(store, datetime.now(UTC), ["tocsin.process", "tocsin.alert", "tocsin.response"])
            runs.append(_once(lab, tocsin, tail, f"shell{number}"))
            say(f"run {number + 1}: paused and verified after {runs[-1]['verified']:.1f} ms")
        store.close()
    return [figure for hop in timeline.HOPS for figure in _figures(hop, [run[hop] for run in runs if hop in run])]


def _once(lab: Lab, tocsin: Instance, tail: Tail, name: str) -> dict[str, float]:
    """One shell in a container of its own; milliseconds from the kernel's time of its exec to each hop."""
    container = lab.container(name)
    lines: list[timeline.Line] = []

    def verified() -> bool:
        lines[:] = [
            x for x in timeline.read(tail.events, tocsin.stored()) if (x.container, x.rule) == (container.name, RULE)
        ]
        return any(line.acted for line in lines)

    with container.terminal("sh"):
        if not tail.until(verified, TIMEOUT_S):
            raise TocsinError(f"the shell in {container.name} was not answered within {TIMEOUT_S:g} s")
    if container.status() != "paused":
        raise TocsinError(f"Docker says that {container.name} is not paused")
    container.remove()
    return {hop: value for hop, value in lines[0].latency_ms.items() if value is not None}


def _figures(hop: str, values: list[float]) -> list[Figure]:
    last = hop == "verified"
    return [
        Figure(f"{hop} p50", percentile(values, 0.50), "ms", at_most=P50_MS if last else None),
        Figure(f"{hop} p99", percentile(values, 0.99), "ms", at_most=P99_MS if last else None),
    ]
