"""docker.stop: ends the container and keeps it ended. Undo starts it again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from playbooks.action import Call, Outcome, Plan, Result
from playbooks.actions._container import NO_CHANGE, NOTHING_LEFT, container_of, first_look, look, run_of
from playbooks.daemon import ContainerState, DaemonTimeout, Gone, Refused
from playbooks.document import Duration

_POLL_S = 0.01


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout: Annotated[Duration, Field(le=300)] = Field(
        10.0, description="What its init gets to end by itself before it is killed, in whole seconds."
    )


class Stop:
    """Ends the container; no restart policy brings it back. Undo starts it, on the networks it was on.

    A paused container is killed frozen, without the grace of `timeout`: Docker's stop would thaw it first, and what
    was frozen for a reason would run on. A container of `docker run --rm` is removed by Docker and cannot come back.
    """

    parameters: ClassVar[type[BaseModel]] = Parameters
    mutates: ClassVar[bool] = True
    undoable: ClassVar[bool] = True
    needs_container: ClassVar[bool] = True

    def plan(self, call: Call, p: Parameters) -> Plan:
        state = first_look(call)
        if state is None:
            return NO_CHANGE
        if _down(state):
            return Plan(False, "the container is not running")
        reason = "it is running with --rm: stopping removes it for good" if state.auto_remove else "it is running"
        return Plan(True, reason, {"run": run_of(state)})

    def act(self, call: Call, p: Parameters, plan: Plan) -> Result:
        id = container_of(call)
        try:
            if call.daemon.inspect(id).paused:
                return self._kill(call, id)
            left_s = max(0, int(call.deadline - time.monotonic()) - 1)
            call.daemon.stop(id, min(int(p.timeout), left_s))
        except Gone:
            return NOTHING_LEFT
        return Result(Outcome.CHANGED, "stopped")

    def verify(self, call: Call, p: Parameters, plan: Plan) -> bool:
        state = look(call)
        return state is None or _down(state)

    def undo(self, call: Call, p: Parameters, saved: Mapping[str, Any]) -> Result:
        id = container_of(call)
        try:
            state = call.daemon.inspect(id)
            if not _down(state):
                return Result(Outcome.UNCHANGED, "it is running already")
            if run_of(state) != saved.get("run"):
                return Result(Outcome.UNCHANGED, "it was started and stopped since: this stop is another's")
            call.daemon.start(id)
            state = call.daemon.inspect(id)
        except Gone:
            return NOTHING_LEFT
        if run_of(state) == saved.get("run"):
            return Result(Outcome.FAILED, "it did not start")
        return Result(Outcome.CHANGED, "running again" if state.running else "started, and ended by itself")

    @staticmethod
    def _kill(call: Call, id: str) -> Result:
        try:
            call.daemon.kill(id)
        except Refused:
            if not _down(call.daemon.inspect(id)):
                raise
        while not _down(call.daemon.inspect(id)):
            if time.monotonic() > call.deadline:
                raise DaemonTimeout("killed, but the container is not down")
            time.sleep(_POLL_S)
        return Result(Outcome.CHANGED, "killed while paused")


def _down(state: ContainerState) -> bool:
    return not (state.running or state.restarting)


action = Stop()
