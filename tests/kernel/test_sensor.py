"""The sensor as a whole: attribution, loss, scope, recording, and what it does without Docker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ecs_mappings.event import Event, encode
from sensor.checks import capabilities
from sensor.sensor import Sensor
from sensor.sources.replay import replay
from tests.kernel.conftest import Watch, does, watching
from tocsin.errors import TocsinError
from tocsin.lab import Container, Lab

pytestmark = [pytest.mark.kernel, pytest.mark.docker]

BURST = "n=0; while [ $n -lt {count} ]; do /bin/true {mark} $n {pad}; n=$((n + 1)); done"


def test_processes_of_a_millisecond_are_attributed(watch: Watch, lab: Lab) -> None:
    boxes = [lab.container(f"short{n}") for n in range(4)]
    for n, box in enumerate(boxes):
        box.start("sh", "-c", BURST.format(count=100, mark=f"mark-short-{n}", pad=""))

    def marked(n: int) -> Any:
        return lambda e: e.event.action == "exec" and f"/bin/true mark-short-{n}" in str(e.process.command_line)[:30]

    for n, box in enumerate(boxes):
        found = watch.some(100, marked(n), timeout_s=30)
        assert {e.container.id for e in found if e.container} == {box.id} and all(e.container for e in found)
        assert sorted(int(e.process.args[2]) for e in found if e.process and e.process.args) == list(range(100))


def test_a_full_ring_is_counted_and_reported(box: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forwarder hangs, so the queue fills, so the reader stops, so the ring of one page fills."""
    monkeypatch.setattr("sensor.pipeline.QUEUE_FRAMES", 4)
    count = 50
    with watching(tmp_path, ring_mib=4096 / 1024**2) as tiny:
        tiny.open.clear()
        box.run("sh", "-c", BURST.format(count=count, mark="mark-ring", pad="x" * 500))
        tiny.open.set()
        tiny.one(lambda e: e.event.action == "events_lost")
    status = tiny.sensor.status()
    seen = len(tiny.all(lambda e: does("exec", box, name="true")(e) and "mark-ring" in str(e.process)))
    assert 0 < seen < count
    assert seen + status["probes"]["exec"]["lost"] >= count
    reports = [e.tocsin.loss for e in tiny.events if e.tocsin and e.tocsin.loss]
    assert {r.stage for r in reports} == {"kernel"}
    for probe in ("exec", "exit"):
        told = sum(r.count for r in reports if r.probe == probe and isinstance(r.count, int))
        assert told == status["probes"][probe]["lost"]


def test_scope_all_shows_the_host_but_never_the_sensor(box: Container, tmp_path: Path) -> None:
    with watching(tmp_path, scope="all") as everything:
        subprocess.run(["/bin/true", "mark-own-child"], check=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.connect(("127.0.0.1", 6701))
        subprocess.run(["setsid", "--fork", "/bin/true", "mark-of-the-host"], check=True)
        box.run("true", "mark-in-the-box")
        host = everything.one(does("exec", command_line="/bin/true mark-of-the-host"))
        everything.one(does("exec", box, command_line="true mark-in-the-box"))
        everything.one(does("exit", command_line="/bin/true mark-of-the-host"))
    assert not host.container and host.process and host.process.executable == os.path.realpath("/bin/true")
    me = os.getpid()
    for event in everything.events:
        if event.process and event.process.parent:
            assert me not in (event.process.pid, event.process.parent.pid), event


def test_excluded_processes_and_their_children_are_not_reported(tmp_path: Path) -> None:
    # The shell is no child of ours by the time it reads: its parent is the host's init.
    go, pid_file = tmp_path / "go", tmp_path / "pid"
    os.mkfifo(go)
    script = f"echo $$ > {pid_file}; read x < {go}; /bin/true mark-excluded; exec /bin/true mark-excluded"
    subprocess.run(["setsid", "--fork", "sh", "-c", script], check=True)
    while not (pid_file.exists() and pid_file.read_text().strip()):
        time.sleep(0.01)
    with watching(tmp_path / "state", scope="all") as everything:
        everything.sensor.exclude([int(pid_file.read_text())])
        go.write_text("go\n")
        time.sleep(0.2)
        subprocess.run(["setsid", "--fork", "/bin/true", "mark-last"], check=True)
        everything.one(does("exec", command_line="/bin/true mark-last"))
    assert not everything.all(lambda e: "mark-excluded" in str(e.process))


def test_a_recording_of_the_real_thing_replays_byte_for_byte(box: Container, tmp_path: Path) -> None:
    with watching(tmp_path / "state", record=tmp_path / "capture") as watch:
        box.run("sh", "-c", "true mark-record; nc -w 1 127.0.0.1 6801; true")
        watch.one(does("connect", box))
    assert list(replay(tmp_path / "capture")) == [encode(e) for e in watch.events]
    assert watch.sensor.status()["captured"] > 3


@pytest.mark.parametrize("kind", ["absent", "hanging", "lying"])
def test_without_docker_it_works_on_with_ids_alone(box: Container, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "docker.sock"
    server = socket.socket(socket.AF_UNIX)
    if kind != "absent":
        server.bind(str(path))
        server.listen()
    if kind == "lying":
        lie = "import socket,sys;s=socket.socket(fileno=0)\nwhile 1:\n c,_=s.accept(); c.recv(9999); "
        lie += 'c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\n[{}]"); c.close()'
        liar = subprocess.Popen(["/usr/bin/python3", "-c", lie], stdin=server)
    try:
        with watching(tmp_path / "state", docker=f"unix://{path}") as watch:
            box.run("true", f"mark-{kind}")
            event = watch.one(does("exec", box, command_line=f"true mark-{kind}"))
            status = watch.sensor.status()["docker"]
    finally:
        server.close()
        if kind == "lying":
            liar.kill()
            liar.wait()
    assert event.container and str(event.container.id) == box.id and not event.container.name
    assert status["connected"] is False and status["detail"]


def test_the_processes_from_before_are_known(box: Container, tmp_path: Path) -> None:
    box.start("sh", "-c", "while [ ! -e /tmp/go-before ]; do sleep 0.05; done; /bin/ls -d mark-before; true")
    time.sleep(0.3)
    with watching(tmp_path) as watch:
        box.run("touch", "/tmp/go-before")
        event = watch.one(does("exec", box, command_line="/bin/ls -d mark-before"))
    assert event.process and event.process.parent and event.tocsin and event.tocsin.process
    assert event.process.parent.executable == "/bin/busybox"
    assert str(event.process.parent.command_line).startswith("sh -c while")
    ancestors = event.tocsin.process.ancestors
    assert isinstance(ancestors, list) and ancestors[0].entity_id == event.process.parent.entity_id


def test_strict_refuses_a_probe_that_cannot_be_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensor.probes import connect

    monkeypatch.setattr(connect, "OFFSETS", (*connect.OFFSETS, ("sock", "no_such_field")))
    sensor = Sensor(lambda _: None, tmp_path / "strict", strict=True)
    with pytest.raises(TocsinError, match=r"the probe connect is off: this kernel's BTF has no sock\.no_such_field"):
        sensor.start()
    with watching(tmp_path / "lax") as watch:
        status = watch.sensor.status()
    assert status["degraded"] == ["the probe connect is off: this kernel's BTF has no sock.no_such_field"]
    assert [n for n, p in status["probes"].items() if p["attached"]] == ["exec", "exit"]


def test_stopping_leaves_nothing_attached(tmp_path: Path) -> None:
    def programs() -> int:
        return sum("tocsin_" in Path(p, "fdinfo", f).read_text() for p in ["/proc/self"] for f in _bpf_fds())

    def _bpf_fds() -> list[str]:
        links = ((f, os.readlink(f"/proc/self/fd/{f}")) for f in os.listdir("/proc/self/fd") if _exists(f))
        return [f for f, link in links if "bpf" in link or "perf_event" in link]

    def _exists(fd: str) -> bool:
        return os.path.lexists(f"/proc/self/fd/{fd}")

    before = len(_bpf_fds())
    with watching(tmp_path):
        assert len(_bpf_fds()) > before
    assert len(_bpf_fds()) == before and programs() >= 0


def test_this_host_can_do_all(watch: Watch) -> None:
    checks = capabilities()
    assert [c for c in checks if not c.ok] == []
    assert {c.name for c in checks} >= {"rights", "kernel", "bcc", "btf", "tracefs"}


def test_events_are_on_time(watch: Watch, box: Container) -> None:
    """Time from the kernel to the event being ready, with room for a busy machine."""
    for n in range(20):
        box.run("true", f"mark-late-{n}")

    def marked(event: Event) -> bool:
        return does("exec", box, name="true")(event) and "mark-late" in str(event.process)

    found = watch.some(20, marked)
    late = sorted(e.tocsin.latency.captured_ms for e in found if e.tocsin and e.tocsin.latency)
    assert isinstance(late[10], float) and late[10] < 50


def test_no_header_of_this_host_is_needed(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from sensor.sensor import Sensor\n"
        f"s = Sensor(lambda lines: None, Path({str(tmp_path)!r}), strict=True); s.start(); s.stop(); print('fine')"
    )
    hidden = 'mount -t tmpfs none /usr/include && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "fine\n", done.stderr[-2000:]
