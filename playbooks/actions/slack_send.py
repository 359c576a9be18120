"""slack.send: tells people in a Slack channel, through an incoming webhook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from msgspec import UnsetType
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ecs_mappings.event import Event
from playbooks import block_kit
from playbooks.action import Call, Delivery, Outcome, Plan, Result, SecretText
from playbooks.actions._webhook import checked_url

FIELD_CHARS = 400
COMMAND_CHARS = 1500


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: SecretText = Field("${secret:SLACK_URL}", description="The incoming webhook; anyone who has it can post.")
    text: str = Field(min_length=1, description="What is said, as plain text; the alert's facts stand below it.")

    check_url = field_validator("url")(checked_url)


class Send:
    """Tells people in a Slack channel: your text, then the rule, container, process and destination of the alert.

    Sent from the outbox, one message a second per webhook; `changed` means it is queued there. What an attacker can
    choose is shown as plain text: it can mention nobody and hide nothing.
    """

    parameters: ClassVar[type[BaseModel]] = Parameters
    mutates: ClassVar[bool] = False
    undoable: ClassVar[bool] = False
    needs_container: ClassVar[bool] = False

    def plan(self, call: Call, p: Parameters) -> Plan:
        return Plan(True, "a message can be queued")

    def act(self, call: Call, p: Parameters, plan: Plan) -> Result:
        body = message(call, p.text)
        call.post(Delivery(id=call.delivery_id, sender="slack.send", url=p.url, body=body))
        return Result(Outcome.CHANGED, "queued", {"delivery": call.delivery_id})

    def verify(self, call: Call, p: Parameters, plan: Plan) -> bool:
        return True

    def undo(self, call: Call, p: Parameters, saved: Mapping[str, Any]) -> Result:
        return Result(Outcome.UNCHANGED, "a message cannot be taken back")


def message(call: Call, text: str) -> bytes:
    """The whole message, within every limit of Slack's for any alert and any text."""
    alert = call.alert
    title = f"[{_severity(alert).upper()}] {_or(_get(alert, 'rule', 'name'), 'Alert')}"
    facts = list(_facts(alert))
    command = _get(alert, "process", "command_line")

    def blocks(scale: float) -> list[block_kit.Block]:
        made = [block_kit.header(title, scale), block_kit.section(text, scale)]
        if facts:
            made.append(block_kit.fields(facts, int(FIELD_CHARS * scale)))
        if isinstance(command, str):
            made.append(
                block_kit.section(command.replace("\n", " "), scale * COMMAND_CHARS / block_kit.MAX_SECTION_CHARS)
            )
        if call.console_url:
            made.append(block_kit.link(call.console_url, ["alerts", alert.event.id], "Open the alert"))
        return made

    return block_kit.message(f"{title}: {text}", blocks)


def _facts(alert: Event) -> Iterator[tuple[str, str]]:
    """What people ask first, as far as the alert has it."""
    for label, path in (
        ("Container", ("container", "name")),
        ("Image", ("container", "image", "name")),
        ("Host", ("host", "name")),
        ("Process", ("process", "executable")),
        ("Parent", ("process", "parent", "executable")),
        ("User", ("user", "name")),
    ):
        if value := _get(alert, *path):
            yield label, str(value)
    if address := _get(alert, "destination", "ip"):
        yield "Destination", f"{address} port {_or(_get(alert, 'destination', 'port'), '?')}"
    if container := _get(alert, "container", "id"):
        yield "Container id", str(container)[:12]
    yield "Time", f"{alert.timestamp:%Y-%m-%d %H:%M:%S} UTC"


def _severity(alert: Event) -> str:
    return str(_or(_get(alert, "tocsin", "alert", "severity"), "unknown"))


def _get(part: Any, *path: str) -> Any:
    """The value at a path of the event; None where any part is absent."""
    for name in path:
        part = getattr(part, name)
        if isinstance(part, UnsetType):
            return None
    return part


def _or(value: Any, otherwise: str) -> Any:
    return otherwise if value is None else value


action = Send()
