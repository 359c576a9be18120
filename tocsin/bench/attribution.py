"""2,000 processes that live about a millisecond, in 4 containers at once: how many are given to the right container."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from msgspec import UNSET

from ecs_mappings.event import Event
from tocsin.bench import Figure
from tocsin.lab import Lab
from tocsin.lab.instance import Instance
from tocsin.lab.tail import Tail

COUNT = 2000
CONTAINERS = 4
DRAIN_S = 30.0
"""So long after the start the last event may still be on its way."""
_WORK = """\
while [ ! -e /tmp/go ]; do sleep 0.05; done
n=0; while [ $n -lt $0 ]; do /bin/true $1 $n; n=$((n + 1)); done
exec sleep 1000000
"""
"""Each process carries the truth in its arguments: which container it is of, and its number."""


def run(count: int | None, store_url: str, say: Callable[[str], None]) -> Sequence[Figure]:
    each = (count or COUNT) // CONTAINERS
    with Lab() as lab, Instance({"store": {"url": store_url, "namespace": "bench"}}) as tocsin:
        begun = datetime.now(UTC)
        truth: dict[str, str] = {}
        containers = []
        for mark in (f"mark{n}" for n in range(CONTAINERS)):
            container = lab.container(mark, "sh", "-c", _WORK, str(each), mark)
            truth[mark] = container.id
            containers.append(container)
        say(f"{each} short processes in each of {CONTAINERS} containers")
        for container in containers:
            container.start("touch", "/tmp/go")
        store = tocsin.store()
        tail = Tail(store, begun, ["tocsin.process"])
        tail.until(lambda: len(verdicts(tail.events, truth)) >= each * CONTAINERS, DRAIN_S, pause_s=0.25)
        store.close()
    found = Counter(verdicts(tail.events, truth).values())
    return [
        Figure("attributed", 100 * found[True] / (each * CONTAINERS), "%", at_least=99.9, ceiling=100.0),
        Figure("wrong", found[False], "processes", at_most=0),
        Figure("unseen", each * CONTAINERS - found.total(), "processes"),
    ]


def verdicts(events: Iterable[Event], truth: dict[str, str]) -> dict[tuple[str, str], bool]:
    """(mark, number) of each process seen -> whether its event names the container of that mark."""
    found: dict[tuple[str, str], bool] = {}
    for event in events:
        arguments = event.process.args if event.process else UNSET
        if event.event.action == "exec" and arguments and len(arguments) == 3 and arguments[1] in truth:
            right = event.container is not UNSET and event.container.id == truth[arguments[1]]
            found[arguments[1], arguments[2]] = right and found.get((arguments[1], arguments[2]), True)
    return found
