"""Connections, as the kernel made or refused them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from ecs_mappings.event import Endpoint, Event
from tests.kernel.conftest import Watch, does
from tocsin.lab import Container, Lab
from tocsin.lab.outside import ADDRESS, PORT

pytestmark = [pytest.mark.kernel, pytest.mark.docker]


def python(workshop: Container, program: str) -> None:
    workshop.run("/usr/bin/python3", "-c", f"import errno, socket, sys\n{program}")


def to_port(watch: Watch, workshop: Container, port: int, count: int = 1) -> list[Event]:
    def wanted(event: Event) -> bool:
        return does("connect", workshop)(event) and bool(event.destination and event.destination.port == port)

    return watch.some(count, wanted)


def summary(event: Event) -> tuple[Any, ...]:
    assert event.network and event.destination
    code = event.error.code if event.error else None
    network = event.network
    return event.event.outcome, code, network.transport, network.type, event.destination.ip


def test_out_of_the_container_with_both_ends(watch: Watch, workshop: Container, lab: Lab) -> None:
    lab.outside()
    program = f"s = socket.create_connection(('{ADDRESS}', {PORT}))\n"
    python(workshop, program + "open('/tmp/port', 'w').write(str(s.getsockname()[1]))")
    (event,) = to_port(watch, workshop, PORT)
    assert summary(event) == ("success", None, "tcp", "ipv4", ADDRESS)
    source = workshop.run("cat", "/tmp/port")
    assert event.source == Endpoint(address=workshop.address(), ip=workshop.address(), port=int(source))
    assert event.network and (event.network.direction, event.network.iana_number) == ("egress", "6")
    assert event.event.category == ["network"] and event.event.dataset == "tocsin.network"
    assert event.process and str(event.process.executable).startswith("/usr/bin/python3")
    assert event.process.args and event.process.parent and event.container and event.container.name == workshop.name


@pytest.mark.parametrize(
    ("family", "address", "kind", "ip", "port"),
    [
        ("AF_INET", "127.0.0.1", "ipv4", "127.0.0.1", 6101),
        ("AF_INET6", "::1", "ipv6", "::1", 6102),
        ("AF_INET6", "::ffff:127.0.0.1", "ipv4", "127.0.0.1", 6103),
    ],
)
def test_tcp(watch: Watch, workshop: Container, family: str, address: str, kind: str, ip: str, port: int) -> None:
    python(
        workshop,
        f"l = socket.socket(socket.{family}); l.bind(('{address}', {port})); l.listen()\n"
        f"s = socket.socket(socket.{family}); s.connect(('{address}', {port})); l.close(); s.close()\n"
        f"s = socket.socket(socket.{family}); assert s.connect_ex(('{address}', {port})) == errno.ECONNREFUSED",
    )
    good, refused = to_port(watch, workshop, port, 2)
    assert summary(good) == ("success", None, "tcp", kind, ip)
    assert good.source and good.source.ip == ip and isinstance(good.source.port, int)
    assert summary(refused) == ("failure", "ECONNREFUSED", "tcp", kind, ip)


@pytest.mark.parametrize(
    ("family", "address", "kind", "port"),
    [("AF_INET", "127.0.0.1", "ipv4", 6201), ("AF_INET6", "::1", "ipv6", 6202)],
)
def test_udp(watch: Watch, workshop: Container, family: str, address: str, kind: str, port: int) -> None:
    python(workshop, f"s = socket.socket(socket.{family}, socket.SOCK_DGRAM); s.connect(('{address}', {port}))")
    (event,) = to_port(watch, workshop, port)
    assert summary(event) == ("success", None, "udp", kind, address)
    assert event.network and event.network.iana_number == "17"


def test_icmp_is_neither_tcp_nor_udp(watch: Watch, workshop: Container) -> None:
    python(workshop, "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); s.connect(('127.0.0.1', 6301))")

    def raw(event: Event) -> bool:
        return does("connect", workshop)(event) and bool(event.network and event.network.transport == "icmp")

    event = watch.one(raw)
    assert event.destination and event.destination.ip == "127.0.0.1"


def test_a_non_blocking_connect_that_is_on_its_way_is_a_success(watch: Watch, workshop: Container, lab: Lab) -> None:
    lab.outside(4455)
    program = "s = socket.socket(); s.setblocking(False)\n"
    python(workshop, program + f"assert s.connect_ex(('{ADDRESS}', 4455)) == errno.EINPROGRESS")
    (event,) = to_port(watch, workshop, 4455)
    assert summary(event) == ("success", None, "tcp", "ipv4", ADDRESS)
    assert event.source and event.source.ip == workshop.address()


def test_an_unreachable_network_is_a_failure_to_where_it_wanted(watch: Watch, workshop: Container) -> None:
    program = "s = socket.socket(socket.AF_INET6); assert s.connect_ex(('2001:db8::9', 6401)) == errno.ENETUNREACH"
    python(workshop, program)
    (event,) = to_port(watch, workshop, 6401)
    assert summary(event) == ("failure", "ENETUNREACH", "tcp", "ipv6", "2001:db8::9")
    assert event.source is UNSET


def test_unix_sockets_and_disconnecting_are_no_connections(watch: Watch, workshop: Container) -> None:
    python(
        workshop,
        "import ctypes, os\n"
        "l = socket.socket(socket.AF_UNIX); l.bind('\\0mark'); l.listen()\n"
        "socket.socket(socket.AF_UNIX).connect('\\0mark')\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', 6501))\n"
        "assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0\n"
        "assert ctypes.CDLL(None).connect(0, bytes(16), 16) == -1\n"
        "s.connect(('127.0.0.1', 6502))",
    )
    (last,) = to_port(watch, workshop, 6502)
    assert last.process
    mine = watch.all(does("connect", workshop, entity_id=last.process.entity_id))
    assert [e.destination.port for e in mine if e.destination] == [6501, 6502]


def test_a_connect_that_seccomp_refuses_is_seen(watch: Watch, lab: Lab, tmp_path: Any) -> None:
    profile = tmp_path / "seccomp.json"
    refusal = {"names": ["connect"], "action": "SCMP_ACT_ERRNO", "args": []}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refusal]}))
    jail = lab.container("jail", options=("--security-opt", f"seccomp={profile}"))
    jail.run("sh", "-c", "nc -w 1 127.0.0.1 6601; true")
    (event,) = to_port(watch, jail, 6601)
    assert summary(event) == ("failure", "EPERM", "tcp", "ipv4", "127.0.0.1")
