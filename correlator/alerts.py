"""Builds alert documents. Owns their words and ids, not when they are raised (that is `groups`)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from correlator.ruleset import SEVERITY, Rule
from ecs_mappings.event import (
    MAX_DOCUMENT_BYTES,
    AlertDetail,
    Ecs,
    Event,
    EventMeta,
    Latency,
    Process,
    Technique,
    Threat,
    ThreatItem,
    Tocsin,
    encode,
)
from ecs_mappings.event import Rule as EcsRule

MAX_EVENTS = 100
MAX_MESSAGE = 512
MAX_DESCRIPTION = 1024
CUT_CHARS = 1024
"""Of each text in an alert that would be over the size of a document."""

TACTICS = {
    "reconnaissance": ("TA0043", "Reconnaissance"),
    "resource-development": ("TA0042", "Resource Development"),
    "initial-access": ("TA0001", "Initial Access"),
    "execution": ("TA0002", "Execution"),
    "persistence": ("TA0003", "Persistence"),
    "privilege-escalation": ("TA0004", "Privilege Escalation"),
    "defense-evasion": ("TA0005", "Defense Evasion"),
    "credential-access": ("TA0006", "Credential Access"),
    "discovery": ("TA0007", "Discovery"),
    "lateral-movement": ("TA0008", "Lateral Movement"),
    "collection": ("TA0009", "Collection"),
    "command-and-control": ("TA0011", "Command and Control"),
    "exfiltration": ("TA0010", "Exfiltration"),
    "impact": ("TA0040", "Impact"),
}


@dataclass(frozen=True)
class Firing:
    """A rule fired: `event` completed it, `events` are the ids behind it, the completing one last."""

    rule: Rule
    key: tuple[str, ...]
    event: Event
    events: tuple[str, ...]
    start_us: int
    end_us: int
    complete: bool
    """False when events were lost within [start, end], or a field the rule looks at was cut."""

    @property
    def id(self) -> str:
        """The same for the same rule, group and event, whoever computes it and however often."""
        return derived_id("firing", self.rule.name, *self.key, self.event.event.id)


@dataclass(frozen=True)
class Standing:
    """Where a firing stands within its group."""

    id: str
    action: str
    """opened or repeated."""
    group: str
    count: int
    first_us: int
    last_us: int
    complete: bool


def derived_id(*parts: str) -> str:
    """128 bits of a hash over the parts, whose borders count."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def alert(firing: Firing, standing: Standing, now_ns: int) -> Event:
    """The document. Its @timestamp is the completing event's, its latency counts from there to `now_ns`."""
    rule, source = firing.rule, firing.event
    detail = source.tocsin if isinstance(source.tocsin, Tocsin) else Tocsin()
    built = Event(
        timestamp=source.timestamp,
        ecs=Ecs(),
        event=EventMeta(
            id=standing.id,
            kind="alert",
            category=["intrusion_detection"],
            type=["info"],
            action=standing.action,
            dataset="tocsin.alert",
            severity=SEVERITY[rule.level],
            start=when(firing.start_us),
            end=when(firing.end_us),
        ),
        message=message(rule, source),
        host=source.host,
        container=source.container,
        process=source.process,
        user=source.user,
        group=source.group,
        source=source.source,
        destination=source.destination,
        network=source.network,
        file=source.file,
        rule=_rule(rule),
        threat=_threat(rule.tags),
        tocsin=Tocsin(
            latency=_latency(detail.latency, source.timestamp, now_ns),
            process=detail.process,
            container=detail.container,
            truncated=detail.truncated,
            alert=AlertDetail(
                group=standing.group,
                key=list(firing.key),
                severity=rule.level,
                count=standing.count,
                events=list(firing.events[-MAX_EVENTS:]),
                first_seen=when(standing.first_us),
                last_seen=when(standing.last_us),
                evidence_complete=standing.complete,
            ),
        ),
    )
    if len(encode(built)) <= MAX_DOCUMENT_BYTES:
        return built
    # An alert must never be refused for what the attacker put into the event.
    return alert(replace(firing, event=cut(source, CUT_CHARS)), standing, now_ns)


def message(rule: Rule, event: Event) -> str:
    """One sentence for people, safe to print: no control or direction-changing characters, bounded."""
    facts = [f"{rule.title}:"]
    process = event.process if isinstance(event.process, Process) else Process()
    program = process.command_line or process.executable
    if program:
        facts.append(printable(program, 160))
    about = [f"pid {process.pid}"] if isinstance(process.pid, int) else []
    if event.user and (event.user.name or event.user.id):
        about.append(f"user {printable(str(event.user.name or event.user.id), 40)}")
    if about:
        facts.append(f"({', '.join(about)})")
    if event.destination and event.destination.ip:
        host = f"[{event.destination.ip}]" if ":" in event.destination.ip else event.destination.ip
        port = f":{event.destination.port}" if isinstance(event.destination.port, int) else ""
        facts.append(f"to {printable(host, 50)}{port}")
    if event.container:
        name = event.container.name or event.container.id[:12]
        image = event.container.image.name if event.container.image else UNSET
        facts.append(f"in container {printable(name, 80)}" + (f" of image {printable(image, 80)}" if image else ""))
    return printable(" ".join(facts), MAX_MESSAGE)


def printable(text: str, limit: int) -> str:
    """The text with every unprintable character escaped, cut at `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def when(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)


def _rule(rule: Rule) -> EcsRule:
    return EcsRule(
        id=rule.name,
        uuid=rule.uuid,
        name=rule.title,
        description=rule.description[:MAX_DESCRIPTION] or UNSET,
        author=[x.strip() for x in rule.author.split(",") if x.strip()] or UNSET,
        license=rule.license or UNSET,
        reference=rule.references[0] if rule.references else UNSET,
        version=rule.date or UNSET,
    )


def _threat(tags: tuple[str, ...]) -> Threat | UnsetType:
    """ATT&CK out of Sigma's tags: attack.execution, attack.t1059.004."""
    names = [tag.removeprefix("attack.") for tag in tags if tag.startswith("attack.")]
    tactics = [TACTICS[name] for name in names if name in TACTICS]
    techniques = [name.upper() for name in names if re.fullmatch(r"t[0-9]{4}(\.[0-9]{3})?", name)]
    if not tactics and not techniques:
        return UNSET
    subtechniques = [x for x in techniques if "." in x]
    return Threat(
        framework="MITRE ATT&CK",
        tactic=ThreatItem(id=[x[0] for x in tactics], name=[x[1] for x in tactics]) if tactics else UNSET,
        technique=Technique(
            id=list(dict.fromkeys(x.split(".")[0] for x in techniques)),
            subtechnique=ThreatItem(id=subtechniques) if subtechniques else UNSET,
        )
        if techniques
        else UNSET,
    )


def _latency(known: Latency | UnsetType, timestamp: datetime, now_ns: int) -> Latency:
    matched = round(now_ns / 1e6 - timestamp.timestamp() * 1e3, 3)
    return Latency(captured_ms=known.captured_ms if known else UNSET, matched_ms=matched)


def cut(event: Event, limit: int) -> Event:
    """The event with its texts cut at `limit` characters, its lists at as many bytes, and without labels.

    What was cut is named in `tocsin.truncated`. Whatever an attacker put into the event, little is left of it.
    """
    paths: set[str] = set()
    less: Event = _cut(event, "", limit, paths)
    detail = less.tocsin if isinstance(less.tocsin, Tocsin) else Tocsin()
    detail = msgspec.structs.replace(detail, truncated=sorted({*(detail.truncated or []), *paths}))
    return msgspec.structs.replace(less, tocsin=detail)


def _cut(value: Any, path: str, limit: int, paths: set[str]) -> Any:
    match value:
        case str() if len(value) > limit:
            paths.add(path)
            return value[:limit]
        case dict():
            paths.add(path)
            return UNSET
        case list():
            return _cut_list(value, path, limit, paths)
        case msgspec.Struct():
            changed = {
                name: less
                for name in value.__struct_fields__
                if (less := _cut(had := getattr(value, name), f"{path}.{name}".strip("."), limit, paths)) is not had
            }
            return msgspec.structs.replace(value, **changed) if changed else value
    return value


def _cut_list(items: list[Any], path: str, limit: int, paths: set[str]) -> list[Any]:
    kept: list[Any] = []
    room = limit
    for item in items:
        if room <= 0:
            paths.add(path)
            break
        kept.append(_cut(item, path, limit, paths))
        room -= len(msgspec.json.encode(kept[-1]))
    return kept
