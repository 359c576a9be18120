"""probe.post: puts a message into the outbox, and needs no container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from playbooks.action import Call, Delivery, Outcome, Plan, Result, SecretText


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: SecretText = "http://receiver.test/hook"
    text: str = "hello"
    tags: list[str] = []


class Post:
    """Puts a message into the outbox."""

    parameters = Parameters
    mutates = False
    undoable = False
    needs_container = False

    def plan(self, call: Call, p: Parameters) -> Plan:
        return Plan(True, "it is to be sent")

    def act(self, call: Call, p: Parameters, plan: Plan) -> Result:
        call.post(Delivery(id=call.delivery_id, sender="probe.post", url=p.url, body=p.text.encode()))
        return Result(Outcome.CHANGED, "in the outbox", {"tags": p.tags})

    def verify(self, call: Call, p: Parameters, plan: Plan) -> bool:
        return True

    def undo(self, call: Call, p: Parameters, saved: Mapping[str, Any]) -> Result:
        raise AssertionError("it has no inverse")


action = Post()
