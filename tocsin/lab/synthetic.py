"""Events as a sensor would send them, with ids known in advance: for load, and to count what arrives."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from ecs_mappings.event import (
    Container,
    Ecs,
    Event,
    EventMeta,
    Host,
    Image,
    ParentProcess,
    Process,
    ProcessDetail,
    Tocsin,
    User,
    encode,
)  # fmt: skip
from tocsin import link
from tocsin.errors import RetryLater, TocsinError
from tocsin.lab.instance import Instance

_HOST = Host(id="lab", name="lab")


def event_id(run: str, number: int) -> str:
    return f"{run}-{number:08d}"


def execs(run: str, count: int, container_ids: Sequence[str] = ("c0ffee00" * 8,), start: int = 0) -> Iterator[bytes]:
    """Encoded exec events of everyday programs, with the ids event_id(run, start), ... Their time is now."""
    for number in range(start, start + count):
        container = container_ids[number % len(container_ids)]
        yield encode(_exec(event_id(run, number), container, "/usr/bin/date", ["date", "+%s", str(number)]))


def shell(
    run: str, number: int, container_id: str, container_name: str, labels: Mapping[str, str] | None = None
) -> bytes:
    """The exec event of an interactive shell, which the rule for them must turn into an alert."""
    return encode(
        _exec(event_id(run, number), container_id, "/bin/sh", ["sh"], name=container_name, labels=labels, tty="pts0")
    )


def _exec(
    id: str,
    container_id: str,
    executable: str,
    args: list[str],
    *,
    name: str = "lab",
    tty: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Event:
    process = Process(
        pid=4242, entity_id=f"entity-{id}", name=args[0], executable=executable, args=args, args_count=len(args),
        command_line=" ".join(args), working_directory="/", interactive=tty is not None,
        parent=ParentProcess(pid=4241, name="runc", executable="/usr/bin/runc"),
    )  # fmt: skip
    container = Container(
        id=container_id,
        name=name,
        runtime="docker",
        image=Image(name="tocsin-lab/synthetic"),
        labels=dict(labels or {}),
    )
    return Event(
        timestamp=datetime.now(UTC), ecs=Ecs(), host=_HOST, process=process, user=User(id="0", name="root"),
        event=EventMeta(id=id, category=["process"], type=["start"], action="exec", dataset="tocsin.process"),
        container=container,
        tocsin=Tocsin(process=ProcessDetail(tty=tty)) if tty else Tocsin(),
    )  # fmt: skip


class Producer:
    """Posts records to the forwarder at a steady rate, and sends again what it could not say was taken."""

    def __init__(self, tocsin: Instance, rate_per_s: float, batch: int = 100) -> None:
        self._tocsin = tocsin
        self._rate = rate_per_s
        self._batch = batch
        self.sent = 0
        """Records that were acknowledged."""
        self.repeated = 0
        """Times a batch had to be sent again."""

    def send(self, records: Iterator[bytes], timeout_s: float = 120.0) -> None:
        """TocsinError when one batch was not taken within `timeout_s`."""
        begun = time.monotonic()
        with self._tocsin.client("forwarder") as client:
            while batch := list(itertools.islice(records, self._batch)):
                self._send_batch(client, b"".join(record + b"\n" for record in batch), timeout_s)
                self.sent += len(batch)
                time.sleep(max(0.0, begun + self.sent / self._rate - time.monotonic()))

    def _send_batch(self, client: link.Client, body: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                client.post("/events", body)
                return
            except RetryLater as e:
                if time.monotonic() > deadline:
                    raise TocsinError(f"a batch was not taken within {timeout_s:g} s: {e}") from e
                self.repeated += 1
                time.sleep(min(1.0, e.after_s or 0.05))
