"""dockerd as a source: who the containers are and what happens to them. Reads only. The only file here with the SDK.

Two threads: one follows the event stream, one answers questions and makes the first list, so that a slow inspect never
holds an event back. dockerd answers none about a container while it starts it, but the event of its creation has its
name, image and labels already; the image's digests and whether it is privileged follow.

Without Docker (absent, hanging, gone) the sensor works on: events carry the container's id alone. After a break the
stream is taken up from the last event seen (`since`), so nothing in between is missed or told twice.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import docker
import msgspec
from docker.errors import NotFound

from ecs_mappings.event import Container, ImageHash, SecurityContext
from sensor.frames import ContainerFact, Frame, FrameQueue, frame_of
from sensor.sources import lifecycle

log = logging.getLogger(__name__)

TIMEOUT_S = 5
OLDEST_API = "1.24"
"""Only spoken to ask for the version, which every daemon answers."""
RETRY_S = (0.2, 0.5, 1.0, 2.0)
MAX_QUESTIONS = 1024
MAX_DIGESTS = 16


class DockerSource:
    """`start` returns at once; containers that run already are told of as soon as Docker answers."""

    def __init__(self, url: str, frames: FrameQueue) -> None:
        self.connected = False
        self.detail = "not asked yet"
        self._url = url
        self._queue = frames
        self._questions: queue.Queue[str | None] = queue.Queue(MAX_QUESTIONS)
        self._asked: set[str] = set()
        """Waiting to be looked up: one container that Docker is slow about must not fill the queue."""
        self._listed = threading.Event()
        self._stopping = threading.Event()
        self._stream: Any = None
        self._seen: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._told: set[str] = set()
        self._mixed: dict[str, frozenset[str]] = {}
        """By container, of those few whose labels replace what Docker says; both threads add."""
        self._last_ns = time.time_ns()
        self._images: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._threads = [
            threading.Thread(target=self._follow, name="sensor-docker-events", daemon=True),
            threading.Thread(target=self._answer, name="sensor-docker-inspect", daemon=True),
        ]

    def start(self, wait_s: float) -> None:
        """Waits up to `wait_s` for the first list, so that the first events already have names."""
        for thread in self._threads:
            thread.start()
        self._listed.wait(wait_s)

    def ask(self, container_id: str) -> bool:
        """Looks a container up; the answer comes as a frame. False when Docker cannot be asked now."""
        if not self.connected:
            return False
        if container_id in self._asked:
            return True
        self._asked.add(container_id)
        try:
            self._questions.put_nowait(container_id)
        except queue.Full:
            self._asked.discard(container_id)
            return False
        return True

    def stop(self) -> None:
        """The threads end by themselves, at the latest when Docker's answer times out; nobody waits for that."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        try:
            self._questions.put_nowait(None)
        except queue.Full:
            pass
        for thread in self._threads:
            thread.join(0.5)

    # The thread that follows

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with contextlib.closing(_client(self._url)) as client:
                    self._stream = client.events(since=self._since(), decode=True)
                    self._connect()
                    failures = 0
                    for event in self._stream:
                        self._take_any(event)
                self._disconnect("dockerd closed the event stream")
            except Exception as e:  # nobody starts this thread again: whatever an answer provokes, it goes on
                self._disconnect(_reason(e))
            self._stopping.wait(RETRY_S[min(failures, len(RETRY_S) - 1)])
            failures += 1

    def _since(self) -> str:
        """The last event's time, to the nanosecond; at first, our own beginning."""
        seconds, nanoseconds = divmod(self._last_ns, 1_000_000_000)
        return f"{seconds}.{nanoseconds:09d}"

    def _connect(self) -> None:
        self.connected, self.detail = True, "following events"
        self._questions.put("")  # the list comes after the stream is open: nothing falls between

    def _disconnect(self, why: str) -> None:
        if not self._stopping.is_set() and (self.connected or self.detail != why):
            log.warning(
                "Docker at %s: %s; events carry container ids alone until it is back", self._url, why,
                extra={"event.action": "docker_disconnected"},
            )  # fmt: skip
        self.connected, self.detail = False, why
        self._listed.set()

    def _take_any(self, event: Any) -> None:
        """What is no event of Docker's goes on as it is, to be counted and reported where records are understood."""
        try:
            self._take(event)
        except Exception:
            self._queue.put(Frame("lifecycle", repr(event)[:1024].encode()))

    def _take(self, event: dict[str, Any]) -> None:
        """`since` repeats the events of its own instant: those are dropped. Who the container is comes first: it must
        be known also when the rest is odd."""
        container_id = lifecycle.container_of(event)
        at = int(event.get("timeNano", 0))
        key = (at, event.get("Type"), event.get("Action"), (event.get("Actor") or {}).get("ID"))
        if key in self._seen:
            return
        self._seen[key] = None
        if len(self._seen) > 256:
            self._seen.popitem(last=False)
        self._last_ns = max(self._last_ns, at)
        born = lifecycle.born(event)
        if born is not None:
            self._mix(container_id, event["Actor"]["Attributes"])
            self._queue.put(frame_of(ContainerFact(born.id, born)))
        if lifecycle.changes_container(event):
            self.ask(container_id)
        fact = lifecycle.fact_of(event, self._mixed.get(container_id, ()))
        if fact is not None:
            self._queue.put(frame_of(fact))
        if lifecycle.is_removal(event):
            self._remove(container_id)

    def _mix(self, container_id: str, labels: Collection[str]) -> None:
        mixed = lifecycle.mixed_in(labels)
        if mixed:
            self._mixed[container_id] = mixed

    # The thread that answers

    def _answer(self) -> None:
        client: Any = None
        while (question := self._questions.get()) is not None:
            self._asked.discard(question)
            try:
                client = client or _client(self._url)
                if question:
                    self._tell(client, question)
                else:
                    self._list(client)
            except Exception as e:
                if client is not None:
                    client.close()
                client = None
                self.detail = _reason(e)
                if question:
                    self._queue.put(frame_of(ContainerFact(question)))
            if not question:
                self._listed.set()

    def _list(self, client: Any) -> None:
        """All there are; and what was told of before and is gone now, unseen, is removed."""
        there = [str(summary["Id"]) for summary in client.containers(all=True)]
        for container_id in self._told - set(there):
            self._remove(container_id)
        for container_id in there:
            self._tell(client, container_id)

    def _tell(self, client: Any, container_id: str) -> None:
        try:
            container = self._container(client, client.inspect_container(container_id))
        except NotFound:
            container = None
        else:
            self._told.add(container_id)
        self._queue.put(frame_of(ContainerFact(container_id, container)))

    def _remove(self, container_id: str) -> None:
        self._told.discard(container_id)
        self._mixed.pop(container_id, None)
        self._queue.put(frame_of(ContainerFact(container_id, removed=True)))

    def _container(self, client: Any, inspected: dict[str, Any]) -> Container:
        config = inspected["Config"]
        self._mix(str(inspected["Id"]), config["Labels"] or {})
        named = lifecycle.container(
            str(inspected["Id"]), str(inspected["Name"]).removeprefix("/"), str(config["Image"]), config["Labels"] or {}
        )
        assert named.image
        digests = ImageHash(all=list(self._digests(client, str(inspected["Image"]))))
        return msgspec.structs.replace(
            named,
            image=msgspec.structs.replace(named.image, hash=digests),
            security_context=SecurityContext(privileged=bool(inspected["HostConfig"]["Privileged"])),
        )

    def _digests(self, client: Any, image_id: str) -> tuple[str, ...]:
        """The image's id and the digests it was pulled by; each image is asked for once."""
        found = self._images.get(image_id)
        if found is None:
            try:
                digests = client.inspect_image(image_id).get("RepoDigests") or []
            except NotFound:
                digests = []
            found = (image_id, *sorted({str(d).rpartition("@")[2] for d in digests})[:MAX_DIGESTS])
            self._images[image_id] = found
            if len(self._images) > 512:
                self._images.popitem(last=False)
        return found


def _client(url: str) -> Any:
    """A client that speaks the daemon's own version of the API."""
    if url.startswith("unix://"):
        # The SDK leaves its socket open when it cannot connect, and says less about why.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(TIMEOUT_S)
            probe.connect(url.removeprefix("unix://"))
    with contextlib.closing(docker.APIClient(base_url=url, version=OLDEST_API, timeout=TIMEOUT_S)) as asking:
        version = str(asking.version(api_version=False)["ApiVersion"])
    return docker.APIClient(base_url=url, version=version, timeout=TIMEOUT_S)


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, PermissionError):
        return "no permission to use the socket"
    if isinstance(error, FileNotFoundError):
        return "no such socket: is dockerd running?"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens on the socket: is dockerd running?"
    if "timed out" in text:
        return f"no answer within {TIMEOUT_S:g} s"
    return text[:200] or type(error).__name__
