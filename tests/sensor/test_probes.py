"""Bytes in, the exact JSON out."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import pytest

from ecs_mappings.event import MAX_DOCUMENT_BYTES
from sensor import probes, record
from sensor.assembler import Assembler
from sensor.frames import Frame
from sensor.record import Malformed
from tocsin.errors import TocsinError

SECOND = 1_000_000_000
NOW_NS = 100 * SECOND + 2_500_000
MAPPED = bytes(10) + b"\xff\xff"


def told(assembler: Assembler, frame: Frame) -> dict[str, Any]:
    line = assembler.take(frame, NOW_NS)
    assert line is not None
    found: dict[str, Any] = json.loads(line.data)
    return found


def test_exec_gives_exactly_this_document(assembler: Assembler, records: Any) -> None:
    frame = records.exec(b"curl", b"-s", b"http://x/a b", tty=b"pts0", tty_major=136, tty_minor=0, uid=33, gid=33)
    assert told(assembler, frame) == {
        "@timestamp": "2023-11-14T22:15:00Z",
        "ecs": {"version": "9.4.0"},
        "event": {
            "id": "01234567-run1-1", "kind": "event", "category": ["process"], "type": ["start"], "action": "exec",
            "dataset": "tocsin.process", "module": "tocsin", "provider": "kernel", "outcome": "success", "sequence": 1,
        },
        "host": {"name": "h"},
        "container": {"id": records.container},
        "process": {
            "pid": 1234, "vpid": 7, "entity_id": assembler.processes.entity_id(1234, 99 * SECOND), "name": "curl",
            "executable": "/usr/bin/curl", "args": ["curl", "-s", "http://x/a b"], "args_count": 3,
            "command_line": "curl -s http://x/a b", "working_directory": "/srv", "interactive": True,
            "tty": {"char_device": {"major": 136, "minor": 0}}, "start": "2023-11-14T22:14:59Z",
            "parent": {
                "pid": 1000, "entity_id": assembler.processes.entity_id(1000, 50 * SECOND), "name": "containerd-shim",
                "start": "2023-11-14T22:14:10Z",
            },
        },
        "user": {"id": "33"},
        "group": {"id": "33"},
        "tocsin": {
            "latency": {"captured_ms": 2.5},
            "process": {"tty": "pts0", "stdin": "char", "stdout": "pipe", "stderr": "pipe"},
        },
    }  # fmt: skip


def test_exec_outside_any_container_has_none(assembler: Assembler, records: Any) -> None:
    event = told(assembler, records.exec(b"ls", container=bytes(64)))
    assert "container" not in event and event["process"]["interactive"] is False


def test_parent_and_ancestors_come_from_earlier_execs(assembler: Assembler, records: Any) -> None:
    told(assembler, records.exec(b"nginx", b"-g", executable=b"/usr/sbin/nginx", pid=10, start_ns=SECOND, ppid=5))
    told(
        assembler,
        records.exec(b"sh", b"-c", b"x", executable=b"/bin/dash", pid=20, start_ns=2 * SECOND, ppid=10,
                     parent_start_ns=SECOND, chain=((SECOND, 10, 1), (7, 5, 0))),
    )  # fmt: skip
    # pid 30 only forked from the shell; its child runs id.
    chain = ((3 * SECOND, 30, 1), (2 * SECOND, 20, 1), (SECOND, 10, 1), (7, 5, 0), (0, 1, 0))
    event = told(assembler, records.exec(b"id", pid=40, ppid=30, parent_start_ns=3 * SECOND, chain=chain))
    ids = [assembler.processes.entity_id(p, s * SECOND) for p, s in ((30, 3), (20, 2), (10, 1))]
    assert event["tocsin"]["process"]["ancestors"] == [
        {"name": "dash", "executable": "/bin/dash", "entity_id": ids[0]},
        {"name": "dash", "executable": "/bin/dash", "entity_id": ids[1]},
        {"name": "nginx", "executable": "/usr/sbin/nginx", "entity_id": ids[2]},
    ]
    event = told(assembler, records.exec(b"id", pid=41, ppid=20, parent_start_ns=2 * SECOND))
    assert event["process"]["parent"]["command_line"] == "sh -c x"
    assert event["process"]["parent"]["executable"] == "/bin/dash"


def test_a_reused_pid_is_another_process(assembler: Assembler, records: Any) -> None:
    told(assembler, records.exec(b"nginx", pid=10, start_ns=SECOND))
    event = told(assembler, records.exec(b"id", pid=40, ppid=10, parent_start_ns=5 * SECOND))
    assert "executable" not in event["process"]["parent"]


def test_an_ancestor_of_another_container_ends_the_chain(assembler: Assembler, records: Any) -> None:
    told(assembler, records.exec(b"evil", pid=10, start_ns=SECOND, container=b"cd" * 32))
    event = told(assembler, records.exec(b"id", chain=((SECOND, 10, 0),)))
    assert "ancestors" not in event["tocsin"]["process"]


@pytest.mark.parametrize(
    ("executable", "args", "name"),
    [
        (b"/bin/busybox", (b"sh",), "sh"),
        (b"/bin/busybox", (b"-sh",), "sh"),
        (b"/bin/busybox", (b"/bin/nc", b"x"), "nc"),
        (b"/bin/busybox", (b"busybox", b"wget", b"y"), "wget"),
        (b"/bin/busybox", (b"/bin/busybox",), "busybox"),
        (b"/bin/busybox", (), "busybox"),
        (b"/usr/bin/python3.11", (b"nginx",), "python3.11"),
        (b"/memfd:x", (b"/proc/self/fd/3",), "memfd:x"),
    ],
)
def test_name_is_the_file_or_the_applet_it_runs(
    assembler: Assembler, records: Any, executable: bytes, args: tuple[bytes, ...], name: str
) -> None:
    assert told(assembler, records.exec(*args, executable=executable))["process"]["name"] == name


def test_foreign_bytes_are_shown_and_stay_one_line(assembler: Assembler, records: Any) -> None:
    line = assembler.take(records.exec(b"\xff\xfe", b"a\nb\x1b[31m", "ä".encode(), b""), NOW_NS)
    assert line is not None and b"\n" not in line.data and b"\x1b" not in line.data
    assert json.loads(line.data)["process"]["args"] == ["\\xff\\xfe", "a\nb\x1b[31m", "ä", ""]


def test_cut_arguments_are_flagged_and_counted_whole(assembler: Assembler, records: Any) -> None:
    event = told(assembler, records.exec(b"echo", b"x" * 9000, b"y", cut=820))
    assert event["tocsin"]["truncated"] == ["process.args", "process.command_line"]
    assert event["process"]["args_count"] == 3
    assert event["process"]["args"] == ["echo", "x" * 8183]


def test_a_parents_arguments_are_kept_short_and_flagged(assembler: Assembler, records: Any) -> None:
    told(assembler, records.exec(b"sh", b"x" * 5000, pid=10, start_ns=SECOND))
    event = told(assembler, records.exec(b"id", ppid=10, parent_start_ns=SECOND))
    assert len(event["process"]["parent"]["command_line"]) == 2048
    assert event["tocsin"]["truncated"] == ["process.parent.args", "process.parent.command_line"]


def test_no_document_is_too_long(assembler: Assembler, records: Any) -> None:
    long = b"\x01" * 8000
    told(assembler, records.exec(long, executable=b"/" + b"\x01" * 4000, pid=10, start_ns=SECOND))
    chain = tuple((SECOND, 10, 1) for _ in range(32))
    line = assembler.take(records.exec(b"\xff" * 8000, ppid=10, parent_start_ns=SECOND, chain=chain), NOW_NS)
    assert line is not None and len(line.data) <= MAX_DOCUMENT_BYTES
    truncated = json.loads(line.data)["tocsin"]["truncated"]
    assert {"process.args", "process.parent.args", "tocsin.process.ancestors"} <= set(truncated)


@pytest.mark.parametrize(
    ("status", "code", "signal"),
    [(0, 0, None), (3 << 8, 3, None), (9, 137, "SIGKILL"), (11 | 0x80, 139, "SIGSEGV"), (40, 168, "SIGRT40")],
)
def test_exit(assembler: Assembler, records: Any, status: int, code: int, signal: str | None) -> None:
    told(assembler, records.exec(b"curl", b"-s"))
    event = told(assembler, records.exit(status))
    assert event["event"]["action"] == "exit" and event["event"]["type"] == ["end"]
    assert event["event"]["duration"] == SECOND
    assert event["process"]["exit_code"] == code
    assert event["process"]["end"] == event["@timestamp"]
    assert event["process"]["args"] == ["curl", "-s"]
    assert event["tocsin"]["process"].get("signal") == signal


def test_exit_of_a_fork_is_the_parents_program(assembler: Assembler, records: Any) -> None:
    told(assembler, records.exec(b"sh", executable=b"/bin/dash", pid=10, start_ns=SECOND))
    event = told(assembler, records.exit(pid=20, ppid=10, parent_start_ns=SECOND))
    assert event["process"]["executable"] == "/bin/dash"
    assert event["tocsin"]["process"]["ancestors"][0]["entity_id"] == assembler.processes.entity_id(10, SECOND)


@pytest.mark.parametrize(
    ("executable", "args", "flags", "dropped"),
    [
        (b"/memfd:runc_cloned:/proc/self/exe", (b"runc", b"init"), record.FLAG_SETUP, True),
        (b"/usr/sbin/runc", (b"runc", b"init"), record.FLAG_SETUP, True),
        (b"/usr/bin/runc", (b"/proc/self/exe", b"init"), record.FLAG_SETUP, True),
        (b"/usr/bin/runc", (b"runc", b"init"), 0, False),
        (b"/memfd:runc_cloned:/proc/self/exe", (b"sh",), record.FLAG_SETUP, False),
        (b"/bin/sh", (b"sh", b"init"), record.FLAG_SETUP, False),
    ],
)
def test_only_the_runtime_itself_is_taken_for_it(
    assembler: Assembler, records: Any, executable: bytes, args: tuple[bytes, ...], flags: int, dropped: bool
) -> None:
    frame = records.exec(*args, executable=executable, flags=flags)
    assert (assembler.take(frame, NOW_NS) is None) == dropped


def test_nothing_that_the_container_started_is_taken_for_the_runtime(assembler: Assembler, records: Any) -> None:
    """It broke out to the host's mounts, and entered a cgroup of its own making."""
    told(assembler, records.exec(b"bash", pid=10, start_ns=SECOND))
    chain = ((2 * SECOND, 20, 0), (SECOND, 10, 0), (7, 5, 0))
    disguise = {"executable": b"/tmp/runc", "flags": record.FLAG_SETUP, "pid": 30, "ppid": 20}
    assert told(assembler, records.exec(b"x", b"init", chain=chain, **disguise))["process"]["name"] == "runc"
    assert assembler.take(records.exec(b"x", b"init", chain=((7, 5, 0),), **disguise), NOW_NS) is None


def test_a_container_too_deep_to_tell_is_flagged(assembler: Assembler, records: Any) -> None:
    event = told(assembler, records.exec(b"ls", flags=record.FLAG_DEEP, container=bytes(64)))
    assert event["tocsin"]["truncated"] == ["container.id"] and "container" not in event


def test_the_runtimes_own_stages_are_no_news(assembler: Assembler, records: Any) -> None:
    assert assembler.take(records.exit(comm=b"runc:[1:CHILD]"), NOW_NS) is None
    told(assembler, records.exec(b"sh"))
    assert assembler.take(records.exit(comm=b"runc:[1:CHILD]"), NOW_NS) is not None  # a name cannot hide a known one


V4, V6 = ipaddress.IPv4Address, ipaddress.IPv6Address


@pytest.mark.parametrize(
    ("result", "protocol", "source", "destination", "expected"),
    [
        (
            0, 6, MAPPED + V4("172.17.0.2").packed, MAPPED + V4("203.0.113.10").packed,
            {"outcome": "success", "network": ["tcp", "ipv4", "6"], "source": "172.17.0.2", "to": "203.0.113.10"},
        ),
        (
            -115, 6, V6("2001:db8::1").packed, V6("2001:db8::2").packed,
            {"outcome": "success", "network": ["tcp", "ipv6", "6"], "source": "2001:db8::1", "to": "2001:db8::2"},
        ),
        (
            -111, 17, MAPPED + bytes(4), MAPPED + V4("127.0.0.1").packed,
            {"outcome": "failure", "network": ["udp", "ipv4", "17"], "to": "127.0.0.1", "code": "ECONNREFUSED"},
        ),
        (
            -512, 262, bytes(16), V6("::1").packed,
            {"outcome": "failure", "network": ["tcp", "ipv6", "6"], "to": "::1", "code": "EINTR"},
        ),
        (
            -1, 99, bytes(16), V6("::1").packed,
            {"outcome": "failure", "network": ["99", "ipv6", "99"], "to": "::1", "code": "EPERM"},
        ),
    ],
)  # fmt: skip
def test_connect(
    assembler: Assembler, records: Any, result: int, protocol: int, source: bytes, destination: bytes,
    expected: dict[str, Any],
) -> None:  # fmt: skip
    event = told(assembler, records.connect(result, protocol, source, 40000, destination, 4444))
    assert event["event"]["outcome"] == expected["outcome"]
    network = event["network"]
    assert [network["transport"], network["type"], network["iana_number"]] == expected["network"]
    assert event["source"].get("ip") == expected.get("source")
    assert event["source"]["port"] == 40000
    assert event["destination"] == {"address": expected["to"], "ip": expected["to"], "port": 4444}
    assert event.get("error", {}).get("code") == expected.get("code")
    assert event["process"]["executable"] == "/usr/bin/curl"


def test_connect_of_a_fork_that_runs_something_else_is_not_the_parents(assembler: Assembler, records: Any) -> None:
    told(assembler, records.exec(b"sh", executable=b"/bin/dash", pid=10, start_ns=SECOND))
    event = told(assembler, records.connect(0, 6, bytes(16), 1, V6("::1").packed, 2, ppid=10, parent_start_ns=SECOND))
    assert event["process"]["name"] == "curl" and "args" not in event["process"]


@pytest.mark.parametrize("cut", [1, 20, record.LAYOUT.size - 1])
def test_a_short_record_is_malformed(assembler: Assembler, records: Any, cut: int) -> None:
    frame = records.exec(b"ls")
    with pytest.raises(Malformed):
        assembler.take(Frame("exec", frame.data[:-cut]), NOW_NS)
    with pytest.raises(Malformed):
        assembler.take(Frame("exec", frame.data[:cut]), NOW_NS)
    assert assembler.sequence == 0


def test_every_probe_has_both_halves_and_every_offset_is_declared() -> None:
    declared = {pair[:2] for pair in record.OFFSETS}
    for name, probe in probes.load_all().items():
        source = probes.source(name).read_text()
        own = {pair[:2] for pair in probe.OFFSETS}
        assert not own & declared, f"{name}: bpf/common.h reads these already"
        used = set(re.findall(r"READ\([^;]*?, (\w+), (\w+)\);", source))
        used |= {(m[1], m[2]) for m in re.finditer(r"OFF_(\w+?)_(pwd|d_name|f_path|mnt|dentry|name)\b", source)}
        assert own <= used, f"{name} declares offsets it does not read: {own - used}"
        assert used <= own | declared, f"{name} reads what it does not declare: {used - own - declared}"
        for hook in probe.HOOKS:
            assert re.search(rf"^int {hook.function}\(", source, re.MULTILINE)


def test_an_unknown_probe_is_refused() -> None:
    with pytest.raises(TocsinError, match="there is no probe 'nope'; there are connect, exec, exit"):
        probes.load("nope")
