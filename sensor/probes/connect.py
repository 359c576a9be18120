"""connect: connect(2) returned on an IPv4 or IPv6 socket, or TCP sent its SYN without. The twin of bpf/connect.c.

One event per call, when it returns: a connect that blocks is seen when it stops blocking. Success is 0 and
EINPROGRESS (a non-blocking socket has sent its SYN); anything else is a failure with the errno's name in error.code.
The socket is the one the call began with, the destination the one the kernel sent the SYN to, whatever other threads
do with the descriptor and the address meanwhile. A SYN that no connect(2) is for, as a Fast Open send's, io_uring's or
a 32-bit call's, is a success when it goes; its source has no port yet.
UDP's connect only sets the peer and always succeeds. An address ::ffff:a.b.c.d is reported as the IPv4 address it is.
Unix sockets and AF_UNSPEC (which disconnects) are no connections.

Not seen: what is sent without a connection (UDP datagrams to an address given with them, raw and packet sockets, SCTP),
and where else than TCP io_uring or a 32-bit call connects to.
"""

from __future__ import annotations

import errno
import socket
import struct

from msgspec import UNSET, UnsetType

from ecs_mappings.event import Endpoint, Error, Network
from sensor.record import Header, Malformed, path
from sensor.sighting import Hook, Scene, Sighting

DATASET = "tocsin.network"
CATEGORY = ["network"]
TYPE = ["connection", "start"]
HOOKS = (
    Hook("tracepoint", "syscalls:sys_exit_connect", "tocsin_connect"),
    Hook("tracepoint", "syscalls:sys_enter_connect", "tocsin_connect_begins"),
    Hook("raw_tracepoint", "inet_sock_set_state", "tocsin_connect_sends"),
)
"""In this order: what is noted has its reader before it has a writer."""
OFFSETS = (
    ("sock", "sk_protocol"),
    ("sock_common", "skc_daddr"),
    ("sock_common", "skc_dport"),
    ("sock_common", "skc_num"),
    ("sock_common", "skc_rcv_saddr"),
    ("sock_common", "skc_v6_daddr"),
    ("sock_common", "skc_v6_rcv_saddr"),
)
LAYOUT = struct.Struct("=iHHH2sHH16s16s")

_MAPPED = bytes(10) + b"\xff\xff"
_TRANSPORTS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "ipv6-icmp", 132: "sctp", 136: "udplite", 262: "tcp"}
_RESTARTS = {512, 513, 514, 516}
"""ERESTARTSYS and its kin never leave the kernel: the call was interrupted by a signal."""
_NETWORKS: dict[tuple[int, bool], Network] = {}


def read(header: Header, body: bytes, scene: Scene) -> Sighting:
    (
        result, _family, protocol, source_port, port, executable_size, executable_cut, source, destination,
    ) = LAYOUT.unpack_from(body)  # fmt: skip
    if LAYOUT.size + executable_size != len(body):
        raise Malformed(f"a connect record of {len(body)} bytes has a path of {executable_size}")
    executable = path(body[LAYOUT.size :]) if executable_size else ""
    process, detail, cut = scene.processes.describe(
        header, executable, scene.when(header.start_ns), scene.when(header.parent_start_ns)
    )
    failed = result not in (0, -errno.EINPROGRESS)
    if executable_cut:
        cut += ("process.executable",)
    return Sighting(
        process,
        detail,
        "failure" if failed else "success",
        network=_network(protocol, destination.startswith(_MAPPED)),
        source=_source(source, source_port),
        destination=_endpoint(destination, int.from_bytes(port, "big")),
        error=Error(code=_code(-result)) if failed else UNSET,
        truncated=cut,
    )


def _network(protocol: int, is_v4: bool) -> Network:
    """One of at most 2 x 2^16 values, made once each."""
    found = _NETWORKS.get((protocol, is_v4))
    if found is None:
        found = _NETWORKS[protocol, is_v4] = Network(
            transport=_TRANSPORTS.get(protocol, str(protocol)),
            iana_number="6" if protocol == 262 else str(protocol),  # 262 is Linux's own number for multipath TCP
            type="ipv4" if is_v4 else "ipv6",
            direction="egress",
        )
    return found


def _endpoint(address: bytes, port: int | UnsetType) -> Endpoint:
    if address.startswith(_MAPPED):
        ip = socket.inet_ntop(socket.AF_INET, address[12:])
    else:
        ip = socket.inet_ntop(socket.AF_INET6, address)
    return Endpoint(address=ip, ip=ip, port=port)


def _source(address: bytes, port: int) -> Endpoint | UnsetType:
    """Absent as far as the kernel has not chosen it."""
    if not any(address[12:]) and (address.startswith(_MAPPED) or not any(address)):
        return Endpoint(port=port) if port else UNSET
    return _endpoint(address, port or UNSET)


def _code(number: int) -> str:
    return "EINTR" if number in _RESTARTS else errno.errorcode.get(number, str(number))
