"""What a program started in a container looks like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from ecs_mappings.event import Event
from tests.kernel.conftest import Watch, does
from tocsin.lab import Container

pytestmark = [pytest.mark.kernel, pytest.mark.docker]


def streams(event: Event) -> tuple[Any, ...]:
    assert event.tocsin and event.tocsin.process
    detail = event.tocsin.process
    return detail.stdin, detail.stdout, detail.stderr


def test_docker_exec_gives_exactly_these_fields(watch: Watch, box: Container) -> None:
    box.run("sh", "-c", "true; exit 0", "mark-fields")
    event = watch.one(does("exec", box, command_line="sh -c true; exit 0 mark-fields"))
    assert event.container and event.container.name == box.name and event.container.runtime == "docker"
    assert event.container.image and str(event.container.image.name) == "tocsin-lab/busybox"
    assert event.container.image.hash and str(event.container.image.hash.all).count("sha256:") == 1
    assert event.host and event.host.boot and event.event.outcome == "success"
    assert event.process and event.process.parent
    parent = event.process.parent
    assert parent.name in ("runc", "containerd-shim")
    told = msgspec.to_builtins(event.process)
    assert isinstance(told["vpid"], int) and told["pid"] > told["vpid"] > 1
    for volatile in ("pid", "vpid", "entity_id", "start", "parent"):
        told.pop(volatile)
    assert told == {
        "name": "sh", "executable": "/bin/busybox", "args": ["sh", "-c", "true; exit 0", "mark-fields"],
        "args_count": 4, "command_line": "sh -c true; exit 0 mark-fields", "working_directory": "/",
        "interactive": False,
    }  # fmt: skip
    assert msgspec.to_builtins(event.user) == {"id": "0", "name": "root"}
    assert streams(event) == ("char", "pipe", "pipe")
    assert event.tocsin and event.tocsin.latency and event.tocsin.truncated is UNSET


def test_a_terminal_makes_it_interactive(watch: Watch, box: Container) -> None:
    with box.terminal("sh", "-i") as terminal:
        terminal.type("echo hel''lo; id -u > /dev/null; exit\n")
        terminal.wait_for("hello")
        terminal.finish()
    shell = watch.one(does("exec", box, command_line="sh -i"))
    assert shell.process and shell.process.interactive is True
    assert shell.tocsin and shell.tocsin.process and shell.tocsin.process.tty == "pts0"
    assert msgspec.to_builtins(shell.process.tty) == {"char_device": {"major": 136, "minor": 0}}
    assert streams(shell) == ("char", "char", "char")
    exec_started = watch.one(does("exec_started", box, command_line="sh -i"))
    assert (
        exec_started.tocsin and exec_started.tocsin.container and len(str(exec_started.tocsin.container.exec_id)) == 64
    )


def test_parent_and_ancestors_reach_up_to_the_first_process(watch: Watch, box: Container) -> None:
    box.run("sh", "-c", "sh -c '(true; /bin/ls -d mark-tree; true); true'; true")
    event = watch.one(does("exec", box, command_line="/bin/ls -d mark-tree"))
    assert event.process and event.process.parent and event.tocsin and event.tocsin.process
    assert event.process.parent.pid != event.process.pid
    ancestors = event.tocsin.process.ancestors
    assert isinstance(ancestors, list)
    # the subshell only forked: it is what its parent is
    assert [a.name for a in ancestors] == ["sh", "sh", "sh"]
    assert len({a.entity_id for a in ancestors}) == 3
    assert ancestors[0].entity_id == event.process.parent.entity_id
    outer = watch.one(does("exec", box, entity_id=ancestors[2].entity_id))
    assert outer.process and str(outer.process.command_line).startswith("sh -c sh -c")


def test_the_path_is_resolved_through_links_directories_and_mounts(watch: Watch, workshop: Container) -> None:
    prepare = "mkdir -p /tmp/a/b && cp /bin/busybox /tmp/a/b/evil && ln -sf ./b/evil /tmp/a/sh2 && cd /tmp/a"
    workshop.run("sh", "-c", f"{prepare} && ./../a/sh2 x-mark-path; /usr/bin/env mark-mount; true")
    event = watch.one(does("exec", workshop, command_line="./../a/sh2 x-mark-path"))
    assert event.process and event.process.executable == "/tmp/a/b/evil"
    assert (event.process.name, event.process.working_directory) == ("evil", "/tmp/a")
    mounted = watch.one(does("exec", workshop, command_line="/usr/bin/env mark-mount"))
    assert mounted.process and mounted.process.executable == "/usr/bin/env"


def test_a_script_is_what_runs_it(watch: Watch, box: Container) -> None:
    box.run("sh", "-c", "printf '#!/bin/sh -e\\ntrue\\n' > /tmp/job && chmod +x /tmp/job && /tmp/job mark-script")
    event = watch.one(does("exec", box, command_line="/bin/sh -e /tmp/job mark-script"))
    assert event.process and event.process.executable == "/bin/busybox" and event.process.name == "sh"


@pytest.mark.parametrize("depth", [30, 40])
def test_a_deep_path_is_whole_or_flagged(watch: Watch, box: Container, depth: int) -> None:
    folder = "/tmp/deep" + "/d" * (depth - 3)
    box.run("sh", "-c", f"mkdir -p {folder} && cp /bin/busybox {folder}/true && {folder}/true mark-depth-{depth}")
    event = watch.one(does("exec", box, command_line=f"{folder}/true mark-depth-{depth}"))
    assert event.process and event.tocsin
    if depth < 32:
        assert event.process.executable == f"{folder}/true" and event.tocsin.truncated is UNSET
    else:
        assert event.tocsin.truncated == ["process.executable"]
        assert str(event.process.executable).endswith("/d/d/true")


@pytest.mark.parametrize(
    ("depth", "file"), [(20, "./true"), (29, "./true"), (31, "./true"), (40, "./true"), (40, "/bin/true")]
)
def test_long_names_of_directories_hide_neither_an_execution_nor_its_arguments(
    watch: Watch, box: Container, depth: int, file: str
) -> None:
    line = f"{file} mark-long-{depth}"
    descend = f"n=$(printf %0255d 0); for i in $(seq {depth}); do mkdir -p $n; cd -P $n; done"
    box.run("sh", "-c", f"cd /tmp; {descend}; [ -e ./true ] || cp /bin/busybox ./true; {line}")
    event = watch.one(does("exec", box, command_line=line), timeout_s=3)
    assert event.process and event.process.args == line.split() and event.tocsin and event.tocsin.truncated
    assert str(event.process.executable).rpartition("/")[2] in {"true", "busybox"}


def test_arguments_of_8192_bytes_are_whole_and_of_9000_cut_and_flagged(watch: Watch, box: Container) -> None:
    room = 8192 - len("/bin/true\0mark-whole\0") - 1
    box.run("sh", "-c", f"/bin/true mark-whole $(printf %0{room}d 0); /bin/true mark-cut $(printf %09000d 0) end")
    whole = watch.one(lambda e: does("exec", box, name="true", args_count=3)(e) and "mark-whole" in str(e.process))
    assert whole.process and isinstance(whole.process.args, list) and len(whole.process.args[2]) == room
    assert whole.tocsin and whole.tocsin.truncated is UNSET
    cut = watch.one(lambda e: does("exec", box, args_count=4)(e) and "mark-cut" in str(e.process))
    assert cut.process and isinstance(cut.process.args, list) and cut.tocsin
    assert sum(len(a) + 1 for a in cut.process.args) - 1 == 8192
    assert cut.tocsin.truncated == ["process.args", "process.command_line"]


def test_foreign_bytes_in_arguments(watch: Watch, box: Container) -> None:
    box.run("sh", "-c", "/bin/true mark-bytes \"$(printf '\\377\\n\\033[31m')\" '' ä")
    event = watch.one(lambda e: does("exec", box, name="true")(e) and "mark-bytes" in str(e.process))
    assert event.process and event.process.args == ["/bin/true", "mark-bytes", "\\xff\n\x1b[31m", "", "ä"]


def test_user_group_and_directory(watch: Watch, box: Container) -> None:
    from tocsin.lab.client import docker

    docker("exec", "-u", "33:33", "-w", "/var/www", box.id, "true", "mark-user")
    event = watch.one(does("exec", box, command_line="true mark-user"))
    assert msgspec.to_builtins(event.user) == {"id": "33"} and msgspec.to_builtins(event.group) == {"id": "33"}
    assert event.process and event.process.working_directory == "/var/www"


def test_standard_streams(watch: Watch, workshop: Container) -> None:
    workshop.run("sh", "-c", "/bin/true mark-streams <&- >/tmp/out 2>&1")
    event = watch.one(does("exec", workshop, command_line="/bin/true mark-streams"))
    assert streams(event) == ("closed", "file", "file")
    program = (
        "import socket, subprocess\n"
        "a, b = socket.socketpair()\n"
        "l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname())\n"
        "subprocess.run(['/bin/true', 'mark-sockets'], stdin=a, stdout=c, stderr=c)\n"
    )
    workshop.run("/usr/bin/python3", "-c", program)
    event = watch.one(does("exec", workshop, command_line="/bin/true mark-sockets"))
    assert streams(event) == ("socket_unix", "socket_inet", "socket_inet")


def test_a_program_that_exists_only_in_memory(watch: Watch, workshop: Container) -> None:
    program = (
        "import os\n"
        "fd = os.memfd_create('ghost')\n"
        "os.write(fd, open('/bin/busybox', 'rb').read())\n"
        "os.execve(fd, ['true', 'mark-memfd'], {})\n"
    )
    workshop.run("/usr/bin/python3", "-c", program)
    event = watch.one(does("exec", workshop, command_line="true mark-memfd"))
    assert event.process and event.process.executable == "/memfd:ghost"


def test_setting_a_container_up_is_no_event_of_it(watch: Watch, box: Container) -> None:
    box.run("true", "mark-setup")
    watch.one(does("exit", box, command_line="true mark-setup"))
    for event in watch.all(lambda e: bool(e.container and e.container.id == box.id and e.process)):
        assert event.process and "runc" not in str(event.process.executable)
        assert not str(event.process.name).startswith("runc")


def test_the_first_process_of_a_container_has_its_name_already(watch: Watch, lab: Any) -> None:
    for n in range(5):
        born = lab.container(f"first{n}", labels={"team": "red"})
        event = watch.one(does("exec", born, vpid=1))
        assert event.container and event.container.name == born.name
        assert event.container.labels and event.container.labels["team"] == "red"
        born.remove()


def test_an_exec_from_a_thread_is_the_processs(watch: Watch, workshop: Container) -> None:
    program = (
        "import os, threading, time\n"
        "threading.Thread(target=lambda: os.execv('/bin/true', ['true', 'mark-thread'])).start()\n"
        "time.sleep(5)\n"
    )
    workshop.run("/usr/bin/python3", "-c", program)
    event = watch.one(does("exec", workshop, command_line="true mark-thread"))
    assert event.process
    before = watch.one(lambda e: does("exec", workshop, entity_id=event.process.entity_id)(e))  # type: ignore[union-attr]
    assert before.process and before.process.pid == event.process.pid and before.process.name != "true"
    ends = watch.some(1, does("exit", workshop, entity_id=event.process.entity_id))
    assert len(ends) == 1 and ends[0].process and ends[0].process.command_line == "true mark-thread"
