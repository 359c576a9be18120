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


def exactly(watch: Watch, workshop: Container, port: int) -> Event:
    """The one connect to this port. Records come in order, so after a later one there is no other."""
    (event,) = to_port(watch, workshop, port)
    python(workshop, f"s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', {port + 10_000}))")
    to_port(watch, workshop, port + 10_000)
    assert to_port(watch, workshop, port) == [event]
    return event


@pytest.mark.parametrize(
    ("family", "address", "kind", "ip", "port"),
    [
        ("AF_INET", "127.0.0.1", "ipv4", "127.0.0.1", 6701),
        ("AF_INET6", "::1", "ipv6", "::1", 6702),
        ("AF_INET6", "::ffff:127.0.0.1", "ipv4", "127.0.0.1", 6703),
    ],
)
@pytest.mark.parametrize(("protocol", "more"), [("0", 0), ("262", 10)])  # 262: multipath TCP
def test_a_fast_open_send_is_a_connection(
    watch: Watch,
    workshop: Container,
    family: str,
    address: str,
    kind: str,
    ip: str,
    port: int,
    protocol: str,
    more: int,
) -> None:
    port += more
    python(
        workshop,
        f"l = socket.socket(socket.{family}); l.bind(('{address}', {port})); l.listen()\n"
        f"s = socket.socket(socket.{family}, socket.SOCK_STREAM, {protocol})\n"
        f"s.sendto(b'x', socket.MSG_FASTOPEN, ('{address}', {port}))\n"
        "assert l.accept()[0].recv(1) == b'x'",
    )
    event = exactly(watch, workshop, port)
    assert summary(event) == ("success", None, "tcp", kind, ip)
    assert event.source == Endpoint(address=ip, ip=ip) and event.process
    assert str(event.process.executable).startswith("/usr/bin/python3")


def test_a_connect_whose_syn_waits_for_data_is_one_connection(watch: Watch, workshop: Container) -> None:
    python(
        workshop,
        "l = socket.socket(); l.bind(('127.0.0.1', 6721)); l.listen(); s = socket.socket()\n"
        "s.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT\n"
        "s.connect(('127.0.0.1', 6721)); s.send(b'x'); assert l.accept()[0].recv(1) == b'x'",
    )
    assert summary(exactly(watch, workshop, 6721)) == ("success", None, "tcp", "ipv4", "127.0.0.1")


BLOCKS = """
import ctypes, os, struct, threading, time
l = socket.socket(); l.bind(('127.0.0.1', {port})); l.listen(0)
full = [socket.socket() for _ in range(3)]
for s in full:
    s.setblocking(False); s.connect_ex(('127.0.0.1', {port}))
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', 0, 400000))
address = ctypes.create_string_buffer(struct.pack('=HH4s8x', 2, socket.htons({port}), bytes((127, 0, 0, 1))))
other = {other}
fd = os.dup(s.fileno())
def meanwhile():
    time.sleep(0.1)
    os.dup2(other.fileno(), fd)
    address[2:4] = b'\\0\\1'
thread = threading.Thread(target=meanwhile); thread.start()
begun = time.monotonic(); assert ctypes.CDLL(None).connect(fd, address, 16) == -1
assert time.monotonic() - begun > 0.3
thread.join()
"""
"""A connect that nobody answers for 0.4 s; meanwhile another thread puts something else in the descriptor's place, and
another port into the address."""


@pytest.mark.parametrize(
    ("port", "other"), [(6731, "open('/dev/null')"), (6732, "socket.socket()"), (6733, "socket.socketpair()[0]")]
)
def test_a_thread_that_changes_descriptor_and_address_hides_nothing(
    watch: Watch, workshop: Container, port: int, other: str
) -> None:
    python(workshop, BLOCKS.format(port=port, other=other))
    connects = [e for e in to_port(watch, workshop, port, 4) if e.event.outcome == "success"]
    assert len(connects) == 4
    last = connects[-1]
    assert summary(last) == ("success", None, "tcp", "ipv4", "127.0.0.1") and last.process
    mine = watch.all(does("connect", workshop, entity_id=last.process.entity_id))
    assert [e.destination.port for e in mine if e.destination] == [port] * 4


def test_an_interrupted_connect_is_told_of_where_its_syn_went(watch: Watch, workshop: Container) -> None:
    """The call fails, the address has another port by then, and the SYN is out."""
    program = BLOCKS.format(port=6741, other="s").replace("0, 400000", "5, 0")
    interrupt = (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)\nsignal.siginterrupt(signal.SIGALRM, True)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.9)\n"
    )
    python(workshop, interrupt + program)
    last = to_port(watch, workshop, 6741, 4)[-1]
    assert summary(last) == ("failure", "EINTR", "tcp", "ipv4", "127.0.0.1")


URING = """
import ctypes, mmap, os, struct
libc = ctypes.CDLL(None)
l = socket.socket(); l.bind(('127.0.0.1', 6751)); l.listen()
params = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 4, params); assert ring >= 0
tail, array = struct.unpack_from('4xI16xI', params, 40)
rings, entries = mmap.mmap(ring, 4096), mmap.mmap(ring, 4096, offset=0x10000000)
s = socket.socket()
address = ctypes.create_string_buffer(struct.pack('=HH4s8x', 2, socket.htons(6751), bytes((127, 0, 0, 1))))
entries[:24] = struct.pack('=BBHiQQ', 16, 0, 0, s.fileno(), 16, ctypes.addressof(address))
rings[array:array + 4] = bytes(4)
rings[tail:tail + 4] = struct.pack('I', 1)
assert libc.syscall(426, ring, 1, 1, 1, None, 0) == 1
l.accept()
"""


def test_a_tcp_connection_by_io_uring_is_seen(watch: Watch, workshop: Container) -> None:
    python(workshop, URING)
    assert summary(exactly(watch, workshop, 6751)) == ("success", None, "tcp", "ipv4", "127.0.0.1")


def test_multipath_tcp_is_one_connection(watch: Watch, workshop: Container) -> None:
    python(
        workshop,
        "l = socket.socket(); l.bind(('127.0.0.1', 6761)); l.listen()\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.connect(('127.0.0.1', 6761)); l.accept()",
    )
    event = exactly(watch, workshop, 6761)
    assert summary(event) == ("success", None, "tcp", "ipv4", "127.0.0.1")
    assert event.source and event.source.ip == "127.0.0.1" and isinstance(event.source.port, int)
