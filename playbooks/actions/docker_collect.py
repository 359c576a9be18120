"""docker.collect: keeps what Docker knows of the container, with hashes, before anything is changed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from playbooks import evidence
from playbooks.action import Call, Outcome, Plan, Result
from playbooks.actions._container import NO_CHANGE, NOTHING_LEFT, container_of, first_look
from playbooks.daemon import DaemonTimeout, Gone, Reading, Refused
from tocsin.errors import TocsinError

_log = logging.getLogger(__name__)

Kind = Literal["inspect", "top", "diff", "events", "logs"]
_SIZE = re.compile(r"^([0-9]{1,6})(KiB|MiB|GiB)$")
_UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_STEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def _bytes(text: object) -> int:
    found = _SIZE.match(text) if isinstance(text, str) else None
    if not found:
        raise ValueError(f"must be a size such as 512KiB or 20MiB, not {text!r}")
    return int(found[1]) * _UNITS[found[2]]


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    include: list[Kind] = Field(list(get_args(Kind)), min_length=1, description="What to keep.")
    max_size: Annotated[int, BeforeValidator(_bytes, json_schema_input_type=str), Field(ge=4096, le=1024**3)] = Field(
        20 * 1024**2, description="Of all parts together, as 20MiB; what is longer is cut, and the manifest says so."
    )
    log_lines: int = Field(5000, ge=1, le=1_000_000, description="Newest lines of its output.")


class Collect:
    """Keeps what Docker knows of the container: inspect, processes, changed files, events and the newest output.

    Files of mode 0600 in the run's evidence directory, with a manifest of their sha256, there in whole or not at all.
    Values of environment variables are left out. Works on paused containers. A part that cannot be had is noted in the
    manifest; the step fails only if there is none at all.
    """

    parameters: ClassVar[type[BaseModel]] = Parameters
    mutates: ClassVar[bool] = False
    undoable: ClassVar[bool] = False
    needs_container: ClassVar[bool] = True

    def plan(self, call: Call, p: Parameters) -> Plan:
        if _target(call).exists():
            return Plan(False, "it is collected already")
        if first_look(call) is None:
            return NO_CHANGE
        return Plan(True, f"{', '.join(p.include)} can be read")

    def act(self, call: Call, p: Parameters, plan: Plan) -> Result:
        target = _target(call)
        if target.exists():
            return Result(Outcome.UNCHANGED, "it is collected already", {"path": str(target)})
        try:
            parts = list(_parts(call, p))
        except Gone:
            return NOTHING_LEFT
        if all(part.error for part in parts):
            raise TocsinError(f"nothing could be read: {parts[0].error}")
        about = {
            "container": container_of(call),
            "run": call.run_id,
            "step": call.step_id,
            "alert": call.alert.event.id,
        }
        try:
            manifest = evidence.save(target, about, parts)
        except OSError as e:
            raise TocsinError(f"evidence cannot be written to {target}: {e.strerror}") from e
        return self._told(call, target, manifest)

    def verify(self, call: Call, p: Parameters, plan: Plan) -> bool:
        return not evidence.check(_target(call))

    def undo(self, call: Call, p: Parameters, saved: Mapping[str, Any]) -> Result:
        return Result(Outcome.UNCHANGED, "evidence is never removed by a playbook")

    def _told(self, call: Call, target: Path, manifest: evidence.Manifest) -> Result:
        removed = evidence.prune(call.evidence_dir.parent, call.evidence_limit_bytes, keep=call.evidence_dir.name)
        if removed:
            _log.warning(
                "evidence of %d old runs was removed to stay below %d bytes: %s",
                len(removed), call.evidence_limit_bytes, ", ".join(removed[:10]),
                extra={"event.action": "evidence_removed"},
            )  # fmt: skip
        kept = [entry.name for entry in manifest.parts if entry.sha256]
        data = {
            "path": str(target),
            "size_bytes": sum(entry.size_bytes for entry in manifest.parts),
            "parts": kept,
            "cut": [entry.name for entry in manifest.parts if entry.cut],
            "missing": {entry.name: entry.error for entry in manifest.parts if entry.error},
            "removed_runs": removed[:100],
        }
        if problems := evidence.check(target):
            return Result(Outcome.FAILED, f"evidence reads back differently: {problems[0]}", data)
        return Result(Outcome.CHANGED, f"{len(kept)} parts kept, hashes checked", data)


def _target(call: Call) -> Path:
    if not _STEP.fullmatch(call.step_id):
        raise TocsinError(f"the step's name {call.step_id[:80]!r} cannot be the name of a directory")
    return call.evidence_dir / call.step_id


def _parts(call: Call, p: Parameters) -> Iterator[evidence.Part]:
    """Each kind in turn with its share of size and time; what one does not use is left to those after it."""
    left = p.max_size
    kinds = [kind for kind in get_args(Kind) if kind in p.include]
    for number, kind in enumerate(kinds):
        name, read = _READERS[kind]
        now, still = time.monotonic(), len(kinds) - number
        until = now + (call.deadline - now) / (still + 1)  # one share is for writing it all
        try:
            reading = read(call, p, left // still, until)
        except (Refused, DaemonTimeout) as e:
            yield evidence.Part(name, error=str(e))
        else:
            left -= len(reading.content)
            yield evidence.Part(name, reading.content, reading.cut)


def _inspect(call: Call, p: Parameters, max_bytes: int, until: float) -> Reading:
    document = call.daemon.inspect_document(container_of(call))
    config = document.get("Config") or {}
    config["Env"] = [f"{str(entry).partition('=')[0]}=<redacted>" for entry in config.get("Env") or []]
    content = msgspec.json.format(msgspec.json.encode(document), indent=2)
    return Reading(content[:max_bytes], cut=len(content) > max_bytes)


_Reader = Callable[[Call, Parameters, int, float], Reading]
_READERS: Mapping[str, tuple[str, _Reader]] = {
    "inspect": ("inspect.json", _inspect),
    "top": ("top.json", lambda c, p, n, t: c.daemon.top(container_of(c), n, t)),
    "diff": ("diff.json", lambda c, p, n, t: c.daemon.changes(container_of(c), n, t)),
    "events": ("events.ndjson", lambda c, p, n, t: c.daemon.events(container_of(c), n, t)),
    "logs": ("logs.txt", lambda c, p, n, t: c.daemon.logs(container_of(c), p.log_lines, n, t)),
}

action = Collect()
