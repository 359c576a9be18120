"""One line for people about an event: what happened, in words. Owns the wording; tocsin.terminal makes it safe."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import UNSET

from ecs_mappings.event import Endpoint, Event


def subject(event: Event) -> str:
    """The container's name, else the start of its id; `host` outside of containers."""
    if event.container is UNSET:
        return "host"
    return event.container.name or event.container.id[:12]


def summary(event: Event) -> str:
    """What happened, without time and container."""
    by_dataset = {
        "tocsin.alert": _alert,
        "tocsin.response": _response,
        "tocsin.network": _network,
        "tocsin.sensor": _sensor,
        "tocsin.container": _container,
    }
    text = by_dataset.get(event.event.dataset, _process)(event)
    return text or event.message or event.event.action


def _process(event: Event) -> str:
    process = event.process
    if process is UNSET:
        return ""
    text = process.command_line or process.executable or process.name or ""
    if event.event.action == "exit":
        code = "" if process.exit_code is UNSET else f" with {process.exit_code}"
        return f"{process.name or process.executable or text} ended{code}"
    user = f" as {event.user.name or event.user.id}" if event.user and (event.user.name or event.user.id) else ""
    tty = event.tocsin.process.tty if event.tocsin and event.tocsin.process else UNSET
    return f"{text}{user}{f' on {tty}' if tty else ''}"


def _network(event: Event) -> str:
    name = event.process.name if event.process else UNSET
    transport = event.network.transport if event.network else UNSET
    result = f" ({event.error.code})" if event.error and event.error.code else ""
    return f"{name or 'a process'} → {_endpoint(event.destination)} {transport or ''}{result}".replace("  ", " ")


def _endpoint(endpoint: Endpoint | object) -> str:
    if not isinstance(endpoint, Endpoint):
        return "?"
    address = endpoint.ip or endpoint.address or endpoint.domain or "?"
    if endpoint.port is UNSET:
        return address
    return f"[{address}]:{endpoint.port}" if ":" in address else f"{address}:{endpoint.port}"


def _alert(event: Event) -> str:
    rule = event.rule.name or event.rule.id if event.rule else UNSET
    detail = event.tocsin.alert if event.tocsin else UNSET
    if not detail:
        return f"{rule or ''}"
    times = f", {detail.count} times" if detail.count > 1 else ""
    return f"{detail.severity}: {rule}{times}"


def _response(event: Event) -> str:
    step = event.tocsin.playbook if event.tocsin else UNSET
    if not step:
        return ""
    verified = "" if step.verified is UNSET else ", verified" if step.verified else ", NOT verified"
    undo = f" (undo of {step.undo_of})" if step.undo_of else ""
    reason = f": {event.event.reason}" if event.event.reason else ""
    return f"{step.name}/{step.step} {event.event.action}{undo} → {step.outcome}{verified}{reason}"


def _sensor(event: Event) -> str:
    loss = event.tocsin.loss if event.tocsin else UNSET
    if loss:
        where = "/".join(str(x) for x in (loss.stage, loss.probe, loss.sink) if x is not UNSET)
        return f"{'an unknown number of' if loss.count is UNSET else loss.count} events lost at {where}"
    counters = event.tocsin.sensor if event.tocsin else UNSET
    if counters and event.event.action == "heartbeat":
        return f"captured {counters.captured or 0}, lost {counters.lost or 0}, queued {counters.queued or 0}"
    return ""


def _container(event: Event) -> str:
    image = event.container.image.name if event.container and event.container.image else UNSET
    command = event.process.command_line if event.process else UNSET
    return " ".join(str(x) for x in (event.event.action, command or image) if x)


def local(time: datetime) -> str:
    """Time of day in the reader's zone, with milliseconds; with the date when it was not today."""
    here = time.astimezone()
    day = "" if here.date() == datetime.now().astimezone().date() else f"{here:%Y-%m-%d} "
    return f"{day}{here:%H:%M:%S}.{here.microsecond // 1000:03d}"


def ago(seconds: float) -> str:
    """A length of time in its largest sensible unit: 250 ms, 42 s, 5 min, 3.2 h, 4.1 d."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{_short(seconds / divisor)} {unit}"
    return f"{_short(seconds / 86_400)} d"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")


def since(time: datetime) -> str:
    return f"{ago(max(timedelta(0), datetime.now(UTC) - time).total_seconds())} ago"
