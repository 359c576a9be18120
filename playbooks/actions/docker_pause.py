"""docker.pause: freezes every process of the container. Undo thaws it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
from pydantic import BaseModel

from playbooks.action import Call, Outcome, Plan, Result
from playbooks.actions._container import (
    NO_CHANGE,
    NOTHING_LEFT,
    NoParameters,
    container_of,
    first_look,
    look,
    plain,
    run_of,
)
from playbooks.daemon import ContainerState, CpuLimit, Gone, Refused

FREEZE_ATTEMPTS = 3
"""Docker gives up freezing a busy container after 0.25 s; a second attempt is cheap."""


class Pause:
    """Freezes every process of the container; nothing in it can notice or resist. Undo thaws it.

    Processes that a CPU limit holds back cannot reach the point where they freeze, and Docker's pause fails. So a
    limited container's limit is lifted first and put back when it is frozen.
    """

    parameters: ClassVar[type[BaseModel]] = NoParameters
    mutates: ClassVar[bool] = True
    undoable: ClassVar[bool] = True
    needs_container: ClassVar[bool] = True

    def plan(self, call: Call, p: NoParameters) -> Plan:
        state = first_look(call)
        if state is None:
            return NO_CHANGE
        if not state.running:
            return Plan(False, "the container is not running")
        if state.paused:
            left = call.saved is not None and _is_lifted(state, call.saved)
            return Plan(left, "its CPU limit is still lifted" if left else "it is paused already", call.saved or {})
        return Plan(True, "it is running", {"run": run_of(state)} | _limit(call, state))

    def act(self, call: Call, p: NoParameters, plan: Plan) -> Result:
        id = container_of(call)
        try:
            with _lifted(call, plan.saved):
                _freeze(call, id)
        except Gone:
            return NOTHING_LEFT
        except Refused:
            state = look(call)
            if state is None or not state.running:
                return Result(Outcome.UNCHANGED, "the container has ended meanwhile")
            raise
        return Result(Outcome.CHANGED, "paused")

    def verify(self, call: Call, p: NoParameters, plan: Plan) -> bool:
        state = look(call)
        return state is not None and state.paused and not _is_lifted(state, plan.saved)

    def undo(self, call: Call, p: NoParameters, saved: Mapping[str, Any]) -> Result:
        id = container_of(call)
        try:
            state = call.daemon.inspect(id)
            if _is_lifted(state, saved):
                call.daemon.set_cpu_limit(id, _read(saved, "cpu"))
            if not state.paused:
                return Result(Outcome.UNCHANGED, "it is not paused any more")
            if run_of(state) != saved.get("run"):
                return Result(Outcome.UNCHANGED, "it was restarted since: this pause is another's")
            call.daemon.unpause(id)
            state = call.daemon.inspect(id)
        except Gone:
            return NOTHING_LEFT
        if state.paused or _is_lifted(state, saved):
            return Result(Outcome.FAILED, "it is still paused, or its CPU limit still lifted")
        return Result(Outcome.CHANGED, "running again")


def _freeze(call: Call, id: str) -> None:
    for attempt in range(1, FREEZE_ATTEMPTS + 1):
        try:
            return call.daemon.pause(id)
        except Refused as e:
            if call.daemon.inspect(id).paused:
                return
            if "freeze" not in str(e) or attempt == FREEZE_ATTEMPTS:
                raise


def _limit(call: Call, state: ContainerState) -> dict[str, Any]:
    """What to save of the CPU limit: what it is and what it will be meanwhile. Nothing where none throttles."""
    if not state.cpu.throttles:
        return {}
    lifted = call.daemon.unthrottled(state.cpu)
    return {} if lifted == state.cpu else {"cpu": plain(state.cpu), "lifted": plain(lifted)}


@contextmanager
def _lifted(call: Call, saved: Mapping[str, Any]) -> Iterator[None]:
    if "cpu" not in saved:
        yield
        return
    id = container_of(call)
    try:
        call.daemon.set_cpu_limit(id, _read(saved, "lifted"))
        yield
    finally:
        call.daemon.set_cpu_limit(id, _read(saved, "cpu"))


def _is_lifted(state: ContainerState, saved: Mapping[str, Any]) -> bool:
    """Only our own value counts: a limit that someone has set since stays."""
    return "cpu" in saved and state.cpu == _read(saved, "lifted")


def _read(saved: Mapping[str, Any], key: str) -> CpuLimit:
    return msgspec.convert(saved[key], CpuLimit)


action = Pause()
