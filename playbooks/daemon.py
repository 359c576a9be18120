"""The Docker daemon as playbooks see it: what a container is now, and the few things that may be done to it.

Owns every call from playbooks to Docker: its timeout, its bound on what is read, and what an error means. The SDK gives
transport and API version; the calls are made here because it lacks NanoCpus and reads answers without a bound.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import docker
import msgspec
import requests

from tocsin.errors import Rejected, RetryLater, TocsinError

CALL_TIMEOUT_S = 10.0
"""Longest silence of the daemon within one call. Its slowest plain answer, a pause that fails, takes 0.25 s."""

_FULL_ID = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 64 * 1024
_MAX_ERROR_CHARS = 300


class Gone(TocsinError):
    """There is no such container any more."""


class Refused(TocsinError):
    """The daemon understood and said no; the message is its own."""


class DaemonTimeout(RetryLater):
    """The daemon took the call and did not answer in time: nobody knows whether it had an effect."""


class CpuLimit(msgspec.Struct, frozen=True):
    """Docker keeps `--cpus` and `--cpu-quota` apart, and at most one of them is set. 0 and -1 are no limit."""

    nano_cpus: int = 0
    quota: int = 0
    """Microseconds per CFS period."""

    @property
    def throttles(self) -> bool:
        return self.nano_cpus > 0 or self.quota > 0


class Attachment(msgspec.Struct, frozen=True):
    """How a container hangs on one network: enough to attach it again the same way."""

    id: str
    name: str
    settings: dict[str, Any]
    """Docker's EndpointSettings, only what a user can choose: aliases, links, static addresses, driver options."""


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """One container at one instant."""

    id: str
    name: str
    """Without Docker's leading slash."""
    image: str
    """As it was named to `docker run`."""
    labels: dict[str, str]
    running: bool
    """Docker's sense: a paused container is running too."""
    paused: bool
    restarting: bool
    started_at: datetime | None
    """Of the current or last run, UTC, cut to microseconds."""
    finished_at: datetime | None
    tty: bool
    auto_remove: bool
    """`docker run --rm`: Docker removes it when it stops."""
    network_mode: str
    networks: dict[str, Attachment]
    """By name. A container that shares another's network has none of its own."""
    cpu: CpuLimit


class Reading(msgspec.Struct, frozen=True):
    """What the daemon told, up to a bound; `cut` says that there was more."""

    content: bytes
    cut: bool


class Daemon(Protocol):
    """What playbooks need of Docker. `id` is always the full id of 64 hexadecimal digits, anything else is Rejected.

    Every method raises Gone; Refused with the daemon's reason; RetryLater when nobody answers at the socket; and
    DaemonTimeout, a RetryLater, when the answer does not come. Safe to share between threads.
    """

    def inspect(self, id: str) -> ContainerState: ...

    def inspect_document(self, id: str) -> dict[str, Any]:
        """Docker's own document, secrets in the environment included: redact before it goes anywhere."""

    def pause(self, id: str) -> None: ...

    def unpause(self, id: str) -> None: ...

    def stop(self, id: str, grace_s: int) -> None:
        """Asks its init to end, kills after `grace_s`, returns when it is down. Unfreezes a paused container first."""

    def kill(self, id: str) -> None:
        """SIGKILL; a paused container dies without running again. Returns before it is down; no restart policy acts."""

    def start(self, id: str) -> None: ...

    def unthrottled(self, limit: CpuLimit) -> CpuLimit:
        """The same kind of limit, so high that it never throttles on this machine."""

    def set_cpu_limit(self, id: str, limit: CpuLimit) -> None:
        """Of a running or paused container. `limit` must be of the kind it has: Docker refuses to mix them."""

    def disconnect(self, id: str, network: str) -> None:
        """Works on running, paused and stopped containers. `network` is the network's full id."""

    def connect(self, id: str, attachment: Attachment) -> None: ...

    def top(self, id: str, max_bytes: int, deadline: float) -> Reading:
        """Processes, as Docker's JSON. It and the three below raise DaemonTimeout past time.monotonic() `deadline`."""

    def changes(self, id: str, max_bytes: int, deadline: float) -> Reading:
        """Files added, changed and deleted since the image, as Docker's JSON."""

    def logs(self, id: str, lines: int, max_bytes: int, deadline: float) -> Reading:
        """The newest lines of both output streams, with times; when cut, the oldest of them are missing."""

    def events(self, id: str, max_bytes: int, deadline: float) -> Reading:
        """What the daemon still remembers of the container (it keeps 256 events of all), one JSON object a line."""


class DockerDaemon:
    """The real one, at `url` (unix:///var/run/docker.sock). Connects at the first call, and anew after it was away."""

    def __init__(self, url: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._api: str | None = None
        self._cpus: int | None = None
        try:
            self._client = docker.APIClient(base_url=url, version="1.41", timeout=math.ceil(timeout_s))
        except docker.errors.DockerException as e:
            raise TocsinError(f"{url} is no address of a Docker daemon: {_clean(str(e))}") from e
        self._client.trust_env = False  # requests would look for proxies and netrc at every call

    def close(self) -> None:
        """Closes the kept connections."""
        self._client.close()

    def inspect(self, id: str) -> ContainerState:
        return state_of(self.inspect_document(id))

    def inspect_document(self, id: str) -> dict[str, Any]:
        document: dict[str, Any] = self._call("GET", f"/containers/{_full(id)}/json").json()
        return document

    def pause(self, id: str) -> None:
        self._call("POST", f"/containers/{_full(id)}/pause")

    def unpause(self, id: str) -> None:
        self._call("POST", f"/containers/{_full(id)}/unpause")

    def stop(self, id: str, grace_s: int) -> None:
        self._call("POST", f"/containers/{_full(id)}/stop", params={"t": str(grace_s)}, extra_s=grace_s)

    def kill(self, id: str) -> None:
        self._call("POST", f"/containers/{_full(id)}/kill", params={"signal": "SIGKILL"})

    def start(self, id: str) -> None:
        self._call("POST", f"/containers/{_full(id)}/start")

    def unthrottled(self, limit: CpuLimit) -> CpuLimit:
        # Docker takes -1 for a quota, but no more NanoCpus than the machine has.
        return CpuLimit(nano_cpus=self._machine_cpus() * 1_000_000_000) if limit.nano_cpus else CpuLimit(quota=-1)

    def set_cpu_limit(self, id: str, limit: CpuLimit) -> None:
        change = {"NanoCpus": limit.nano_cpus} if limit.nano_cpus else {"CpuQuota": limit.quota}
        self._call("POST", f"/containers/{_full(id)}/update", body=change)

    def disconnect(self, id: str, network: str) -> None:
        self._call("POST", f"/networks/{_full(network)}/disconnect", body={"Container": _full(id), "Force": False})

    def connect(self, id: str, attachment: Attachment) -> None:
        body = {"Container": _full(id), "EndpointConfig": attachment.settings}
        self._call("POST", f"/networks/{_full(attachment.id)}/connect", body=body)

    def top(self, id: str, max_bytes: int, deadline: float) -> Reading:
        return self._read(f"/containers/{_full(id)}/top", {}, max_bytes, deadline)

    def changes(self, id: str, max_bytes: int, deadline: float) -> Reading:
        return self._read(f"/containers/{_full(id)}/changes", {}, max_bytes, deadline)

    def logs(self, id: str, lines: int, max_bytes: int, deadline: float) -> Reading:
        params = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": str(lines)}
        plain = self.inspect(id).tty
        with self._stream(f"/containers/{id}/logs", params, deadline) as chunks:
            return _newest(chunks if plain else frames(chunks), max_bytes)

    def events(self, id: str, max_bytes: int, deadline: float) -> Reading:
        params = {"since": "0", "until": f"{time.time():.6f}", "filters": json.dumps({"container": [_full(id)]})}
        return self._read("/events", params, max_bytes, deadline)

    def _machine_cpus(self) -> int:
        if self._cpus is None:
            self._cpus = int(self._call("GET", "/info").json()["NCPU"])
        return self._cpus

    def _version(self) -> str:
        """The newest API the daemon speaks; asked again after it was away, it may have been upgraded."""
        if self._api is None:
            self._api = str(self._request("GET", "/version", {}, None, 0, stream=False).json()["ApiVersion"])
        return self._api

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        extra_s: float = 0,
        stream: bool = False,
    ) -> requests.Response:
        response = self._request(method, f"/v{self._version()}{path}", params or {}, body, extra_s, stream)
        if response.status_code >= 400:
            with closing(response):
                raise _refusal(response)
        return response

    def _request(
        self, method: str, path: str, params: Mapping[str, str], body: Any, extra_s: float, stream: bool
    ) -> requests.Response:
        timeout_s = self._timeout_s + extra_s
        url = f"{self._client.base_url}{path}"
        try:
            return self._client.request(method, url, params=params, json=body, stream=stream, timeout=timeout_s)
        except requests.exceptions.Timeout as e:
            raise DaemonTimeout(f"Docker did not answer within {timeout_s:g} s") from e
        except requests.exceptions.RequestException as e:
            self._api = None
            raise RetryLater(f"Docker does not answer at {self._url}: {_clean(str(e))}") from e

    def _read(self, path: str, params: Mapping[str, str], max_bytes: int, deadline: float) -> Reading:
        content = bytearray()
        with self._stream(path, params, deadline) as chunks:
            for chunk in chunks:
                content += chunk
                if len(content) > max_bytes:
                    return Reading(bytes(content[:max_bytes]), cut=True)
        return Reading(bytes(content), cut=False)

    @contextmanager
    def _stream(self, path: str, params: Mapping[str, str], deadline: float) -> Iterator[Iterator[bytes]]:
        """The answer as it comes; the connection is closed at the end, read to its end or not."""
        with closing(self._call("GET", path, params=params, stream=True)) as response:
            try:
                yield _until(deadline, response.iter_content(_CHUNK_BYTES))
            except requests.exceptions.RequestException as e:
                raise DaemonTimeout(f"Docker's answer stopped half way: {_clean(str(e))}") from e


def state_of(document: Mapping[str, Any]) -> ContainerState:
    """Docker's inspect document, read. What a stopped or odd container lacks is empty, never an error."""
    config, state, host = (document.get(key) or {} for key in ("Config", "State", "HostConfig"))
    networks = (document.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerState(
        id=document["Id"],
        name=str(document.get("Name", "")).removeprefix("/"),
        image=str(config.get("Image", "")),
        labels={str(k): str(v) for k, v in (config.get("Labels") or {}).items()},
        running=state.get("Running") is True,
        paused=state.get("Paused") is True,
        restarting=state.get("Restarting") is True,
        started_at=_time(state.get("StartedAt")),
        finished_at=_time(state.get("FinishedAt")),
        tty=config.get("Tty") is True,
        auto_remove=host.get("AutoRemove") is True,
        network_mode=str(host.get("NetworkMode", "")),
        networks={name: _attachment(document["Id"], name, endpoint) for name, endpoint in networks.items()},
        cpu=CpuLimit(int(host.get("NanoCpus") or 0), int(host.get("CpuQuota") or 0)),
    )


def frames(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The payloads of Docker's multiplexed stream: stream number, three zeros, length, payload."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 8 and len(buffer) >= 8 + (size := int.from_bytes(buffer[4:8], "big")):
            yield bytes(buffer[8 : 8 + size])
            del buffer[: 8 + size]


def _newest(pieces: Iterator[bytes], max_bytes: int) -> Reading:
    kept: deque[bytes] = deque()
    size, cut = 0, False
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        while size - len(kept[0]) >= max_bytes:
            size -= len(kept.popleft())
            cut = True
    return Reading(b"".join(kept)[-max_bytes:], cut or size > max_bytes)


def _until(deadline: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise DaemonTimeout("Docker's answer took too long")
        yield chunk


def _attachment(container: str, name: str, endpoint: Mapping[str, Any]) -> Attachment:
    settings = {key: endpoint[key] for key in ("IPAMConfig", "Links", "DriverOpts", "GwPriority") if endpoint.get(key)}
    # Up to API 1.44 Docker lists the short id among the aliases; it adds it by itself.
    aliases = [a for a in endpoint.get("Aliases") or [] if a != container[:12]]
    return Attachment(str(endpoint.get("NetworkID", "")), name, settings | ({"Aliases": aliases} if aliases else {}))


def _time(text: str | None) -> datetime | None:
    """Docker's nine digits of a second, cut to six; its year 1 means never."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(UTC)


def _full(id: str) -> str:
    if not _FULL_ID.fullmatch(id):
        raise Rejected(f"{id[:80]!r} is not a full id of 64 hexadecimal digits")
    return id


def _refusal(response: requests.Response) -> TocsinError:
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = response.text
    if response.status_code == 404 and "no such container" in message.lower():
        return Gone("the container is gone")
    return Refused(f"Docker refused: {_clean(message)}")


def _clean(message: str) -> str:
    """One line, printable, bounded: containers choose parts of it."""
    return "".join(c if c.isprintable() else " " for c in message)[:_MAX_ERROR_CHARS]
