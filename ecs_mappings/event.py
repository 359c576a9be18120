"""THE CONTRACT: the only definition of a Tocsin event. Template, legal field paths and docs/events.md derive from it.

Field names and types are ECS 9.4's; what ECS lacks lives under `tocsin.*` and nowhere else. An absent field is UNSET
and is not written. Documents are nested. Times are UTC with microseconds. A `list` field is always a list.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

ECS_VERSION = "9.4.0"  # https://www.elastic.co/guide/en/ecs, release 9.4.0

MAX_DOCUMENT_BYTES = 256 * 1024
"""No event is longer than this, encoded. The sensor cuts and flags; everyone else refuses a longer line."""

Keyword = str
Ip = Annotated[str, Meta(extra={"es": "ip"})]
Wildcard = Annotated[str, Meta(extra={"es": "wildcard"})]
"""Long strings that people search inside: ECS's wildcard type where the cluster has it, else keyword."""
Text = Annotated[str, Meta(extra={"es": "match_only_text"})]
Long = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What fits into 64 bits: no store and no snapshot holds more."""
Labels = Annotated[dict[str, str], Meta(extra={"es": "flattened"})]
"""Keys are the user's (dots and all), so they must never become mapped fields."""


class _Part(msgspec.Struct, frozen=True):
    """One object inside an event."""


class Ecs(_Part, frozen=True, kw_only=True):
    version: Keyword = ECS_VERSION


class EventMeta(_Part, frozen=True, kw_only=True):
    """ECS `event.*`. `id` is given once, by whoever made the event, and never changes."""

    id: Keyword
    kind: Keyword = "event"
    category: list[Keyword]
    type: list[Keyword]
    action: Keyword
    dataset: Keyword
    module: Keyword = "tocsin"
    provider: Keyword | UnsetType = UNSET
    outcome: Keyword | UnsetType = UNSET
    """success, failure or unknown."""
    sequence: Long | UnsetType = UNSET
    """Counts from 1 without a hole within one sensor run: a missing number is a lost event."""
    duration: Long | UnsetType = UNSET
    """Nanoseconds (ECS)."""
    severity: Long | UnsetType = UNSET
    reason: Keyword | UnsetType = UNSET
    original: Annotated[str, Meta(extra={"es": "keyword", "index": False})] | UnsetType = UNSET
    start: datetime | UnsetType = UNSET
    end: datetime | UnsetType = UNSET

    def __post_init__(self) -> None:
        if not self.id or len(self.id) > 128:
            raise ValueError("event.id must have 1 to 128 characters")


class HostOs(_Part, frozen=True, kw_only=True):
    type: Keyword | UnsetType = UNSET
    kernel: Keyword | UnsetType = UNSET
    name: Keyword | UnsetType = UNSET
    version: Keyword | UnsetType = UNSET


class HostBoot(_Part, frozen=True, kw_only=True):
    id: Keyword | UnsetType = UNSET


class Host(_Part, frozen=True, kw_only=True):
    id: Keyword | UnsetType = UNSET
    name: Keyword | UnsetType = UNSET
    hostname: Keyword | UnsetType = UNSET
    architecture: Keyword | UnsetType = UNSET
    boot: HostBoot | UnsetType = UNSET
    os: HostOs | UnsetType = UNSET


class ImageHash(_Part, frozen=True, kw_only=True):
    all: list[Keyword] | UnsetType = UNSET


class Image(_Part, frozen=True, kw_only=True):
    name: Keyword | UnsetType = UNSET
    tag: list[Keyword] | UnsetType = UNSET
    hash: ImageHash | UnsetType = UNSET


class SecurityContext(_Part, frozen=True, kw_only=True):
    privileged: bool | UnsetType = UNSET


class Container(_Part, frozen=True, kw_only=True):
    id: Keyword
    """64 hexadecimal digits."""
    name: Keyword | UnsetType = UNSET
    runtime: Keyword | UnsetType = UNSET
    image: Image | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    """At most 64 and 8 KiB in all, `tocsin.*` first; longer values are cut at 256 characters."""
    security_context: SecurityContext | UnsetType = UNSET


class User(_Part, frozen=True, kw_only=True):
    id: Keyword | UnsetType = UNSET
    name: Keyword | UnsetType = UNSET


class Group(_Part, frozen=True, kw_only=True):
    id: Keyword | UnsetType = UNSET
    name: Keyword | UnsetType = UNSET


class CharDevice(_Part, frozen=True, kw_only=True):
    major: Long | UnsetType = UNSET
    minor: Long | UnsetType = UNSET


class Tty(_Part, frozen=True, kw_only=True):
    char_device: CharDevice | UnsetType = UNSET


class ParentProcess(_Part, frozen=True, kw_only=True):
    pid: Long | UnsetType = UNSET
    entity_id: Keyword | UnsetType = UNSET
    name: Keyword | UnsetType = UNSET
    executable: Keyword | UnsetType = UNSET
    command_line: Wildcard | UnsetType = UNSET
    args: list[Keyword] | UnsetType = UNSET
    args_count: Long | UnsetType = UNSET
    start: datetime | UnsetType = UNSET


class Process(_Part, frozen=True, kw_only=True):
    """`pid` is the one the host sees; `vpid` the one the container sees."""

    pid: Long | UnsetType = UNSET
    vpid: Long | UnsetType = UNSET
    entity_id: Keyword | UnsetType = UNSET
    """hash(boot id, pid, start time): survives reuse of the pid."""
    name: Keyword | UnsetType = UNSET
    executable: Keyword | UnsetType = UNSET
    """Absolute path as seen in the container, links resolved by the kernel."""
    args: list[Keyword] | UnsetType = UNSET
    args_count: Long | UnsetType = UNSET
    command_line: Wildcard | UnsetType = UNSET
    working_directory: Keyword | UnsetType = UNSET
    interactive: bool | UnsetType = UNSET
    tty: Tty | UnsetType = UNSET
    start: datetime | UnsetType = UNSET
    end: datetime | UnsetType = UNSET
    exit_code: Long | UnsetType = UNSET
    parent: ParentProcess | UnsetType = UNSET


class Endpoint(_Part, frozen=True, kw_only=True):
    """ECS `source` and `destination`."""

    address: Keyword | UnsetType = UNSET
    ip: Ip | UnsetType = UNSET
    port: Long | UnsetType = UNSET
    domain: Keyword | UnsetType = UNSET
    bytes: Long | UnsetType = UNSET


class Network(_Part, frozen=True, kw_only=True):
    transport: Keyword | UnsetType = UNSET
    """tcp, udp, icmp, ..."""
    type: Keyword | UnsetType = UNSET
    """ipv4 or ipv6."""
    direction: Keyword | UnsetType = UNSET
    iana_number: Keyword | UnsetType = UNSET
    protocol: Keyword | UnsetType = UNSET


class File(_Part, frozen=True, kw_only=True):
    path: Keyword | UnsetType = UNSET
    name: Keyword | UnsetType = UNSET
    extension: Keyword | UnsetType = UNSET
    directory: Keyword | UnsetType = UNSET


class Error(_Part, frozen=True, kw_only=True):
    code: Keyword | UnsetType = UNSET
    """For a refused system call, the errno's name: ECONNREFUSED."""
    message: Text | UnsetType = UNSET
    type: Keyword | UnsetType = UNSET


class Rule(_Part, frozen=True, kw_only=True):
    id: Keyword | UnsetType = UNSET
    """Stem of the rule's file: the name people and playbooks use."""
    uuid: Keyword | UnsetType = UNSET
    """Sigma's `id`."""
    name: Keyword | UnsetType = UNSET
    description: Keyword | UnsetType = UNSET
    author: list[Keyword] | UnsetType = UNSET
    license: Keyword | UnsetType = UNSET
    reference: Keyword | UnsetType = UNSET
    ruleset: Keyword | UnsetType = UNSET
    version: Keyword | UnsetType = UNSET


class ThreatItem(_Part, frozen=True, kw_only=True):
    id: list[Keyword] | UnsetType = UNSET
    name: list[Keyword] | UnsetType = UNSET


class Technique(_Part, frozen=True, kw_only=True):
    id: list[Keyword] | UnsetType = UNSET
    """T1059"""
    name: list[Keyword] | UnsetType = UNSET
    subtechnique: ThreatItem | UnsetType = UNSET
    """T1059.004"""


class Threat(_Part, frozen=True, kw_only=True):
    framework: Keyword | UnsetType = UNSET
    tactic: ThreatItem | UnsetType = UNSET
    technique: Technique | UnsetType = UNSET


class Latency(_Part, frozen=True, kw_only=True):
    """Milliseconds from the kernel time of the (completing) event to the moment each hop was done with it."""

    captured_ms: float | UnsetType = UNSET
    """The sensor had the event ready to send."""
    matched_ms: float | UnsetType = UNSET
    """The correlator had the alert ready to send."""
    decided_ms: float | UnsetType = UNSET
    """The playbook's claim was in the ledger."""
    acted_ms: float | UnsetType = UNSET
    """The action's call had returned."""
    verified_ms: float | UnsetType = UNSET
    """A second look had confirmed the effect."""


class Ancestor(_Part, frozen=True, kw_only=True):
    name: Keyword | UnsetType = UNSET
    executable: Keyword | UnsetType = UNSET
    entity_id: Keyword | UnsetType = UNSET


class ProcessDetail(_Part, frozen=True, kw_only=True):
    """What ECS has no field for."""

    tty: Keyword | UnsetType = UNSET
    """Name of the controlling terminal: pts0."""
    stdin: Keyword | UnsetType = UNSET
    """What the stream is: socket_inet, socket_unix, pipe, char, file, closed, other."""
    stdout: Keyword | UnsetType = UNSET
    stderr: Keyword | UnsetType = UNSET
    ancestors: list[Ancestor] | UnsetType = UNSET
    """Parent first, up to the container's init."""
    signal: Keyword | UnsetType = UNSET
    """Name of the signal that ended the process: SIGKILL."""


class ContainerDetail(_Part, frozen=True, kw_only=True):
    exec_id: Keyword | UnsetType = UNSET
    """Docker's id of a `docker exec`."""
    exit_code: Long | UnsetType = UNSET
    signal: Keyword | UnsetType = UNSET
    network: Keyword | UnsetType = UNSET
    """Name of the Docker network of a connect or disconnect."""


class Loss(_Part, frozen=True, kw_only=True):
    """Of an `events_lost` event: `count` events were lost at one place within [start, end] of `event`."""

    stage: Keyword
    """kernel, queue, source, spool or restart."""
    probe: Keyword | UnsetType = UNSET
    sink: Keyword | UnsetType = UNSET
    count: Long | UnsetType = UNSET
    """Absent where it cannot be known (nobody was watching)."""


class Counters(_Part, frozen=True, kw_only=True):
    """Of a heartbeat: totals since this sensor run started."""

    run: Keyword | UnsetType = UNSET
    captured: Long | UnsetType = UNSET
    delivered: Long | UnsetType = UNSET
    lost: Long | UnsetType = UNSET
    queued: Long | UnsetType = UNSET
    uptime_s: float | UnsetType = UNSET
    cpu_s: float | UnsetType = UNSET
    rss_bytes: Long | UnsetType = UNSET


class AlertDetail(_Part, frozen=True, kw_only=True):
    """Of an alert. A repeat of an open alert is a document of its own (action `repeated`) with the same `group`."""

    group: Keyword
    """Id of the first alert of the group: repeats carry it too."""
    key: list[Keyword]
    """The values the rule groups by, in its order."""
    severity: Keyword
    """Sigma's level: informational, low, medium, high, critical."""
    count: Long
    """Firings in this group so far, this one included."""
    events: list[Keyword]
    """Ids of the events that completed this firing, the completing one last; the newest 100."""
    first_seen: datetime
    last_seen: datetime
    evidence_complete: bool = True
    """False when events were lost in the span this alert looked at."""


class PlaybookRef(_Part, frozen=True, kw_only=True):
    """Of a response: which step of which run this is."""

    name: Keyword
    revision: Keyword
    """First 12 hex digits of the sha256 of the playbook file."""
    run_id: Keyword
    step: Keyword
    mode: Keyword
    outcome: Keyword
    """changed, unchanged, skipped, denied, failed or timeout; waiting while a person is asked."""
    verified: bool | UnsetType = UNSET
    would_change: bool | UnsetType = UNSET
    """Only in dry-run."""
    undo_of: Keyword | UnsetType = UNSET
    """Id of the step this undoes."""
    alert_id: Keyword | UnsetType = UNSET


class Tocsin(_Part, frozen=True, kw_only=True):
    """All of our own fields."""

    latency: Latency | UnsetType = UNSET
    process: ProcessDetail | UnsetType = UNSET
    container: ContainerDetail | UnsetType = UNSET
    loss: Loss | UnsetType = UNSET
    sensor: Counters | UnsetType = UNSET
    alert: AlertDetail | UnsetType = UNSET
    playbook: PlaybookRef | UnsetType = UNSET
    truncated: list[Keyword] | UnsetType = UNSET
    """Paths of fields that were cut. A rule that looks at a cut field must not silently miss."""


class Event(_Part, frozen=True, kw_only=True):
    """One document. Encoded on one line, it is what every link carries and every store keeps."""

    timestamp: datetime = msgspec.field(name="@timestamp")
    ecs: Ecs
    event: EventMeta
    message: Text | UnsetType = UNSET
    tags: list[Keyword] | UnsetType = UNSET
    host: Host | UnsetType = UNSET
    container: Container | UnsetType = UNSET
    process: Process | UnsetType = UNSET
    user: User | UnsetType = UNSET
    group: Group | UnsetType = UNSET
    source: Endpoint | UnsetType = UNSET
    destination: Endpoint | UnsetType = UNSET
    network: Network | UnsetType = UNSET
    file: File | UnsetType = UNSET
    error: Error | UnsetType = UNSET
    rule: Rule | UnsetType = UNSET
    threat: Threat | UnsetType = UNSET
    tocsin: Tocsin | UnsetType = UNSET


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """One line of JSON, without the newline."""
    return _encoder.encode(event)


def decode(line: bytes) -> Event:
    """The event of one line. Unknown fields are dropped; wrong types raise msgspec.ValidationError with the path."""
    return _decoder.decode(line)
