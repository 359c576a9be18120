"""webhook.post: sends the alert, or what the playbook says, to a workflow tool such as n8n."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ecs_mappings.event import encode
from playbooks.action import Call, Delivery, Outcome, Plan, Result, SecretText
from playbooks.actions._webhook import checked_headers, checked_key, checked_url
from tocsin.errors import TocsinError

MAX_BODY_BYTES = 512 * 1024


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: SecretText = Field(description="http or https; best a secret, for who knows it can post.")
    body: Literal["alert", "run"] | dict[str, Any] = Field(
        "alert", description="alert: the event. run: the event and which run this is. Or your own mapping."
    )
    headers: dict[str, SecretText] = Field({}, max_length=20, description='As {X-Token: "${secret:N8N_TOKEN}"}.')
    hmac: SecretText | None = Field(None, description="Key that signs time and body, in X-Tocsin-Signature.")

    check_url = field_validator("url")(checked_url)
    check_headers = field_validator("headers")(checked_headers)
    check_hmac = field_validator("hmac")(checked_key)


class Post:
    """Sends JSON to a workflow tool: the alert, the alert with its run, or a mapping of your own.

    Sent from the outbox; `changed` means it is queued there. Sent again until the receiver answers 2xx, always with the
    same X-Tocsin-Delivery: drop what you have seen. A token goes into `headers`; with `hmac` the header
    X-Tocsin-Signature is `t=<Unix seconds>,v1=<hex HMAC-SHA256 of "<seconds>.<body>">`.
    """

    parameters: ClassVar[type[BaseModel]] = Parameters
    mutates: ClassVar[bool] = False
    undoable: ClassVar[bool] = False
    needs_container: ClassVar[bool] = False

    def plan(self, call: Call, p: Parameters) -> Plan:
        return Plan(True, "a message can be queued")

    def act(self, call: Call, p: Parameters, plan: Plan) -> Result:
        body = _body(call, p)
        if len(body) > MAX_BODY_BYTES:
            raise TocsinError(f"the body has {len(body)} bytes; {MAX_BODY_BYTES} may be sent")
        call.post(
            Delivery(
                id=call.delivery_id, sender="webhook.post", url=p.url, body=body, headers=p.headers, sign_with=p.hmac
            )
        )
        return Result(Outcome.CHANGED, "queued", {"delivery": call.delivery_id, "size_bytes": len(body)})

    def verify(self, call: Call, p: Parameters, plan: Plan) -> bool:
        return True

    def undo(self, call: Call, p: Parameters, saved: Mapping[str, Any]) -> Result:
        return Result(Outcome.UNCHANGED, "a message cannot be taken back")


def _body(call: Call, p: Parameters) -> bytes:
    if p.body == "alert":
        return encode(call.alert)
    if p.body == "run":
        run = {"playbook": call.playbook, "run_id": call.run_id, "step": call.step_id, "delivery": call.delivery_id}
        return msgspec.json.encode({"run": run, "alert": msgspec.Raw(encode(call.alert))})
    return msgspec.json.encode(p.body)


action = Post()
