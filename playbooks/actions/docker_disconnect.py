"""docker.disconnect: takes the container off its networks. Undo puts it back on them, the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from playbooks.action import Call, Outcome, Plan, Result
from playbooks.actions._container import NO_CHANGE, NOTHING_LEFT, container_of, first_look, look, plain
from playbooks.daemon import Attachment, ContainerState, Gone, Refused
from tocsin.errors import TocsinError


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    networks: list[str] | None = Field(None, min_length=1, description="Names or ids of networks; all when not given.")


class Disconnect:
    """Takes the container off its networks, all or the named ones; open connections die with them.

    Works on running, paused and stopped containers. Undo joins each network again with the same aliases, links, static
    addresses and options; an address that Docker chose may be another. A container on the host's network, or in
    another container's, cannot be cut by Docker: the step fails and says so.
    """

    parameters: ClassVar[type[BaseModel]] = Parameters
    mutates: ClassVar[bool] = True
    undoable: ClassVar[bool] = True
    needs_container: ClassVar[bool] = True

    def plan(self, call: Call, p: Parameters) -> Plan:
        state = first_look(call)
        if state is None:
            return NO_CHANGE
        _refuse_shared(state)
        chosen = _chosen(state, p)
        if not chosen:
            return Plan(False, "it is on none of these networks" if p.networks else "it is on no network")
        names = ", ".join(a.name for a in chosen)
        return Plan(True, f"it is on {names}", {"networks": [plain(a) for a in chosen]})

    def act(self, call: Call, p: Parameters, plan: Plan) -> Result:
        refusals: dict[str, str] = {}
        try:
            for attachment in _saved(plan.saved):
                try:
                    call.daemon.disconnect(container_of(call), attachment.id)
                except Refused as e:
                    refusals[attachment.id] = str(e)
            # A refusal may only mean that it was off already.
            left = _chosen(call.daemon.inspect(container_of(call)), p) if refusals else []
        except Gone:
            return NOTHING_LEFT
        still = {a.id for a in left}
        data = {
            "disconnected": [a.name for a in _saved(plan.saved) if a.id not in still],
            "refused": {a.name: refusals.get(a.id, "joined meanwhile") for a in left},
        }
        if left:
            return Result(Outcome.FAILED, f"still on {', '.join(a.name for a in left)}: {_first(data)}", data)
        return Result(Outcome.CHANGED, f"off {', '.join(data['disconnected'])}", data)

    def verify(self, call: Call, p: Parameters, plan: Plan) -> bool:
        state = look(call)
        return state is None or not _chosen(state, p)

    def undo(self, call: Call, p: Parameters, saved: Mapping[str, Any]) -> Result:
        state = look(call)
        if state is None:
            return NOTHING_LEFT
        missing = _missing(state, saved)
        if not missing:
            return Result(Outcome.UNCHANGED, "it is on these networks already")
        refusals: dict[str, str] = {}
        for attachment in missing:
            try:
                call.daemon.connect(state.id, attachment)
            except Refused as e:
                refusals[attachment.id] = str(e)
            except Gone:
                return NOTHING_LEFT
        return _reconnected(look(call), missing, refusals)


def _reconnected(state: ContainerState | None, wanted: list[Attachment], refusals: Mapping[str, str]) -> Result:
    if state is None:
        return NOTHING_LEFT
    on = {a.id for a in state.networks.values()}
    data = {
        "reconnected": [a.name for a in wanted if a.id in on],
        "refused": {a.name: refusals.get(a.id, "left again meanwhile") for a in wanted if a.id not in on},
    }
    if data["refused"]:
        return Result(Outcome.FAILED, f"not back on {', '.join(data['refused'])}: {_first(data)}", data)
    return Result(Outcome.CHANGED, f"back on {', '.join(data['reconnected'])}", data)


def _refuse_shared(state: ContainerState) -> None:
    if state.network_mode == "host":
        raise TocsinError("it uses the host's own network, which Docker cannot cut: use docker.pause or docker.stop")
    if state.network_mode.startswith("container:"):
        other = state.network_mode.removeprefix("container:")[:64]
        raise TocsinError(f"it uses the network of the container {other}: cut that one, or use docker.pause")


def _chosen(state: ContainerState, p: Parameters) -> list[Attachment]:
    """What of the container's networks the playbook means. Docker's network `none` is the absence of one."""
    real = [a for a in state.networks.values() if a.name != "none"]
    return real if p.networks is None else [a for a in real if a.name in p.networks or a.id in p.networks]


def _saved(saved: Mapping[str, Any]) -> list[Attachment]:
    return msgspec.convert(saved["networks"], list[Attachment])


def _missing(state: ContainerState, saved: Mapping[str, Any]) -> list[Attachment]:
    on = {a.id for a in state.networks.values()}
    return [a for a in _saved(saved) if a.id not in on]


def _first(data: Mapping[str, Any]) -> str:
    return str(next(iter(data["refused"].values())))


action = Disconnect()
