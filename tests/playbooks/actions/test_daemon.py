"""One contract for the real daemon and the fake; then what only a socket can do wrong."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from playbooks.daemon import (
    Attachment,
    CpuLimit,
    Daemon,
    DaemonTimeout,
    DockerDaemon,
    Gone,
    Refused,
    frames,
    state_of,
)
from tocsin.errors import Rejected, RetryLater, TocsinError

SOON = 10.0


@pytest.fixture
def collected() -> Iterator[None]:
    """The SDK leaves the socket of a refused connect to the garbage collector: not to that of some later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def later() -> float:
    return time.monotonic() + SOON


def test_inspect_tells_what_a_container_is(world) -> None:
    id = world.run(nano_cpus=500_000_000)
    state = world.daemon.inspect(id)
    assert state.id == id
    assert state.labels["tocsin.test"] == "actions"
    assert (state.running, state.paused, state.restarting) == (True, False, False)
    assert state.name and not state.name.startswith("/")
    assert state.cpu == CpuLimit(nano_cpus=500_000_000)
    assert state.started_at is not None
    assert abs(datetime.now(UTC) - state.started_at) < timedelta(minutes=1)
    assert list(state.networks) == ["bridge"]


@pytest.mark.parametrize("id", ["", "web", "abc123", "A" * 64, "a" * 63, "a" * 65, "../" + "a" * 61, "a" * 64 + "\n"])
def test_only_full_ids_are_taken(world, id: str) -> None:
    for method in ("inspect", "inspect_document", "pause", "unpause", "kill", "start"):
        with pytest.raises(Rejected):
            getattr(world.daemon, method)(id)


def test_every_method_says_that_the_container_is_gone(world) -> None:
    id, network = world.run(), world.network()
    world.remove(id)
    d: Daemon = world.daemon
    calls: list[Callable[[], object]] = [
        lambda: d.inspect(id),
        lambda: d.inspect_document(id),
        lambda: d.pause(id),
        lambda: d.unpause(id),
        lambda: d.stop(id, 1),
        lambda: d.kill(id),
        lambda: d.start(id),
        lambda: d.set_cpu_limit(id, CpuLimit(quota=1000)),
        lambda: d.disconnect(id, network),
        lambda: d.connect(id, Attachment(network, "", {})),
        lambda: d.top(id, 1000, later()),
        lambda: d.changes(id, 1000, later()),
        lambda: d.logs(id, 10, 1000, later()),
    ]
    for one in calls:
        with pytest.raises(Gone):
            one()


def test_pause_and_unpause(world) -> None:
    id = world.run()
    world.daemon.pause(id)
    state = world.daemon.inspect(id)
    assert (state.running, state.paused) == (True, True)
    with pytest.raises(Refused):
        world.daemon.pause(id)
    world.daemon.unpause(id)
    assert not world.daemon.inspect(id).paused
    with pytest.raises(Refused):
        world.daemon.unpause(id)


def test_stop_and_start_may_be_repeated(world) -> None:
    id = world.run()
    before = world.daemon.inspect(id).started_at
    for _ in range(2):
        world.daemon.stop(id, 0)
    state = world.daemon.inspect(id)
    assert not state.running and state.finished_at is not None
    for _ in range(2):
        world.daemon.start(id)
    state = world.daemon.inspect(id)
    assert state.running and state.started_at > before


def test_kill_ends_a_paused_container(world) -> None:
    id = world.run(restart="always")
    world.daemon.pause(id)
    world.daemon.kill(id)
    end = time.monotonic() + SOON
    while world.daemon.inspect(id).running:
        assert time.monotonic() < end
    with pytest.raises(Refused):
        world.daemon.kill(id)


@pytest.mark.parametrize("paused", [False, True])
def test_a_network_is_left_and_joined_again_the_same_way(world, free_subnet: str, paused: bool) -> None:
    id, network = world.run(), world.network(f"{free_subnet}.0/24")
    world.attach(id, network, aliases=("web", "db"), address=f"{free_subnet}.9")
    if paused:
        world.daemon.pause(id)
    before = {a.id: a for a in world.daemon.inspect(id).networks.values()}
    assert len(before) == 2
    for one in before:
        world.daemon.disconnect(id, one)
    assert world.daemon.inspect(id).networks == {}
    with pytest.raises(Refused):
        world.daemon.disconnect(id, network)
    for attachment in before.values():
        world.daemon.connect(id, attachment)
    after = {a.id: a for a in world.daemon.inspect(id).networks.values()}
    assert after == before
    assert after[network].settings["IPAMConfig"]["IPv4Address"] == f"{free_subnet}.9"
    assert sorted(after[network].settings["Aliases"]) == ["db", "web"]
    with pytest.raises(Refused):
        world.daemon.connect(id, after[network])


def test_a_network_that_is_gone_is_refused(world) -> None:
    id = world.run()
    with pytest.raises(Refused):
        world.daemon.disconnect(id, "d" * 64)
    with pytest.raises(Refused):
        world.daemon.connect(id, Attachment("d" * 64, "away", {}))


@pytest.mark.parametrize("limit", [CpuLimit(nano_cpus=100_000_000), CpuLimit(quota=10_000)])
def test_a_cpu_limit_is_lifted_and_put_back(world, limit: CpuLimit) -> None:
    id = world.run(nano_cpus=limit.nano_cpus, quota=limit.quota)
    lifted = world.daemon.unthrottled(limit)
    world.daemon.set_cpu_limit(id, lifted)
    assert world.daemon.inspect(id).cpu == lifted != limit
    world.daemon.pause(id)
    world.daemon.set_cpu_limit(id, limit)
    assert world.daemon.inspect(id).cpu == limit


def test_logs_keep_the_newest(world) -> None:
    id = world.run()
    few = world.daemon.logs(id, 3, 100_000, later())
    assert [line.split()[-1] for line in few.content.splitlines()] == [b"197", b"198", b"199"]
    assert not few.cut
    short = world.daemon.logs(id, 200, 50, later())
    assert short.cut and len(short.content) == 50 and short.content.endswith(b"line 199\n")


def test_readings_are_bounded(world) -> None:
    id = world.run()
    whole = world.daemon.changes(id, 100_000, later())
    assert "/left-behind" in [c["Path"] for c in json.loads(whole.content)] and not whole.cut
    for read in (world.daemon.changes, world.daemon.top):
        part = read(id, 5, later())
        assert part.cut and len(part.content) == 5
    with pytest.raises(DaemonTimeout):
        world.daemon.top(id, 1000, time.monotonic() - 1)


@pytest.mark.parametrize("paused", [False, True])
def test_everything_can_be_read_of_a_paused_container(world, paused: bool) -> None:
    id = world.run()
    if paused:
        world.daemon.pause(id)
    assert json.loads(world.daemon.top(id, 100_000, later()).content)["Processes"]
    assert world.daemon.logs(id, 1, 1000, later()).content
    events = world.daemon.events(id, 100_000, later())
    assert all(json.loads(line) for line in events.content.splitlines())


@pytest.mark.docker
def test_logs_of_a_terminal_are_not_framed(docker_world) -> None:
    id = docker_world.run(command="echo hello; exec sleep 1000", tty=True)
    end = time.monotonic() + SOON
    while not (read := docker_world.daemon.logs(id, 5, 1000, later()).content):
        assert time.monotonic() < end
    assert read.endswith(b"hello\r\n") and read.startswith(b"20")


def test_frames_may_be_split_anywhere() -> None:
    stream = b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\x00\x01\0\0\0\0\0\0\x02!!"
    for size in range(1, len(stream) + 1):
        chunks = (stream[i : i + size] for i in range(0, len(stream), size))
        assert b"".join(frames(chunks)) == b"hello!!"


def test_state_of_a_bare_document_is_empty_not_an_error() -> None:
    state = state_of({"Id": "a" * 64, "State": {"StartedAt": "0001-01-01T00:00:00Z"}, "Config": None})
    assert (state.running, state.started_at, state.networks, state.labels) == (False, None, {}, {})


def test_times_have_nanoseconds() -> None:
    state = state_of({"Id": "a" * 64, "State": {"StartedAt": "2026-11-21T00:31:12.893862299Z"}})
    assert state.started_at == datetime(2026, 11, 21, 0, 31, 12, 893862, UTC)


@pytest.mark.usefixtures("collected")
def test_nobody_at_the_socket_means_later(tmp_path: Path) -> None:
    with closing(DockerDaemon(f"unix://{tmp_path}/none.sock")) as daemon, pytest.raises(RetryLater) as e:
        daemon.inspect("a" * 64)
    assert not isinstance(e.value, DaemonTimeout)
    assert str(tmp_path) in str(e.value)


@pytest.mark.usefixtures("collected")
def test_a_daemon_that_hangs_is_a_timeout_and_may_come_back(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    version = b'{"ApiVersion": "1.41"}'
    daemon = DockerDaemon(f"unix://{path}", timeout_s=1)
    with _answering(path, [version, None]):
        started = time.monotonic()
        with pytest.raises(DaemonTimeout):
            daemon.inspect("a" * 64)
        assert time.monotonic() - started < 3
    with pytest.raises(RetryLater):
        daemon.inspect("a" * 64)
    with _answering(path, [version, b'{"Id": "%s"}' % (b"a" * 64)]):
        assert daemon.inspect("a" * 64).id == "a" * 64
    daemon.close()


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match="no address of a Docker daemon"):
        DockerDaemon("gopher://x")


class _answering:
    """A daemon that gives these bodies, one per connection, then (None) takes requests and says nothing."""

    def __init__(self, path: Path, bodies: list[bytes | None]) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._bodies = bodies
        self._path = path
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> _answering:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        for held in [*self._held, self._listener]:
            held.close()
        self._path.unlink()

    def _serve(self) -> None:
        for body in self._bodies:
            connection, _ = self._listener.accept()
            self._held.append(connection)
            connection.recv(65536)
            if body is not None:
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
                connection.sendall(head + body)
                connection.close()
