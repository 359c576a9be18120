"""A recording gives the same bytes again; anything else is told with file and position."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecs_mappings.event import Container
from sensor import probes
from sensor.assembler import Identity
from sensor.frames import ContainerFact, Frame, LifecycleFact, ProcessFact, frame_of
from sensor.pipeline import Host, Pipeline
from sensor.recording import MAGIC, Reader, Writer
from sensor.sources.replay import replay
from tocsin.errors import TocsinError


@pytest.fixture
def capture(tmp_path: Path, identity: Identity, records: Any) -> tuple[Path, list[bytes]]:
    """A recording of a lively run, and what that run delivered."""
    lines: list[bytes] = []
    path = tmp_path / "capture"
    host = Host(lambda _: False, lambda: {"exec": 2}, lambda _: None)
    pipeline = Pipeline(identity, probes.load_all(), lines.extend, host, tmp_path / "s", heartbeat_s=0.1, record=path)
    pipeline.start(
        [
            frame_of(
                ProcessFact(
                    pid=1000, start_ns=50_000_000_000, ppid=1, parent_start_ns=0, container=records.container,
                    executable="/bin/bash", args=["bash"], working_directory="/",
                )
            )
        ]
    )  # fmt: skip
    for n in range(200):
        pipeline.queue.put(records.exec(b"ls", b"\xff%d" % n, pid=2000 + n))
        pipeline.queue.put(records.exit(pid=2000 + n))
    pipeline.queue.put(Frame("exec", b"broken"))
    container = Container(id=records.container, name="web", labels={"a": "b"})
    pipeline.queue.put(frame_of(ContainerFact(records.container, container)))
    pipeline.queue.put(frame_of(LifecycleFact(time_ns=10**18, action="died", type="end", id=records.container)))
    pipeline.queue.put(records.connect(0, 17, bytes(16), 1, b"\x20\x01" + bytes(14), 53))
    pipeline.stop(5.0)
    return path, lines


def test_replay_is_byte_identical(capture: tuple[Path, list[bytes]]) -> None:
    path, lines = capture
    assert list(replay(path)) == lines
    actions = {json.loads(line)["event"]["action"] for line in lines}
    assert actions >= {"started", "exec", "exit", "connect", "died", "events_lost"}
    connect = next(x for x in map(json.loads, lines) if x["event"]["action"] == "connect")
    assert connect["container"]["name"] == "web"


def test_replay_needs_neither_bcc_nor_docker_nor_root(capture: tuple[Path, list[bytes]]) -> None:
    path, lines = capture
    path.chmod(0o644)
    for folder in path.parents[:3]:
        folder.chmod(0o755)
    program = (
        "import sys, os; sys.modules['bcc'] = sys.modules['docker'] = None; os.setuid(65534)\n"
        "from pathlib import Path; from sensor.sources.replay import replay\n"
        "print(sum(1 for _ in replay(Path(sys.argv[1]))))"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(lines)


def test_a_truncated_recording_gives_what_is_whole_and_says_where_it_broke(
    capture: tuple[Path, list[bytes]],
) -> None:
    path, lines = capture
    path.write_bytes(path.read_bytes()[:-20])
    got: list[bytes] = []
    with pytest.raises(TocsinError, match=rf"^{path}: byte \d+: it was cut off in this block$"):
        for line in replay(path):
            got.append(line)
    assert got == lines[: len(got)]


def test_a_recording_without_its_end_was_cut_off(capture: tuple[Path, list[bytes]]) -> None:
    path, lines = capture
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    got = []
    with pytest.raises(TocsinError, match=rf"byte {len(whole) - 8}: it was cut off here"):
        for line in replay(path):
            got.append(line)
    assert got == lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no capture"),
        (b"hello", "is no capture"),
        (MAGIC, "was cut off here"),
        (MAGIC + bytes(8), "it ends before it begins"),
        (MAGIC + b"\xff\xff\xff\xff\0\0\0\0", "was cut off in this block"),
        (MAGIC + b"\x03\0\0\0\0\0\0\0abc", "checksum"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(TocsinError, match=message):
        list(replay(path))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match="cannot be read: No such file"):
        list(replay(tmp_path / "none"))


def test_a_recording_is_never_overwritten(tmp_path: Path, identity: Identity) -> None:
    (tmp_path / "x").write_text("precious")
    with pytest.raises(TocsinError, match="cannot be recorded to: is there already"):
        Writer(tmp_path / "x", identity)
    assert (tmp_path / "x").read_text() == "precious"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=5000), st.integers(0, 2**64 - 1)), max_size=20))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, identity: Identity, entries: list[tuple[str, bytes, int]]
) -> None:
    path = tmp_path_factory.mktemp("r") / "x"
    writer = Writer(path, identity)
    for i, (kind, data, at) in enumerate(entries):
        writer.add(Frame(kind, data), at)
        if i % 3 == 0:
            writer.flush()
    writer.close()
    with Reader(path) as reader:
        assert reader.identity == identity
        assert [(f.kind, f.data, at) for f, at in reader] == entries


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_a_damaged_recording_is_told_and_never_worse(
    capture: tuple[Path, list[bytes]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path, lines = capture
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    damaged = tmp_path_factory.mktemp("d") / "x"
    damaged.write_bytes(raw)
    got = []
    try:
        for line in replay(damaged):
            got.append(line)
    except TocsinError as e:
        assert str(damaged) in str(e)
    assert got == lines[: len(got)]
