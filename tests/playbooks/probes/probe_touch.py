"""probe.touch: makes a file. An action whose effect can be counted, and that fails, hangs, lies or dies as asked."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from playbooks.action import Call, Outcome, Plan, Result
from tocsin.errors import RetryLater


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    file: Path
    fail: int = 0
    """The first so many attempts."""
    hang_s: float = 0
    lie: bool = False
    die: str = ""
    """Point at which the process is killed, once: plan, act, acted, verify, undo, undone."""
    number: int = 0


class Touch:
    """Makes a file."""

    parameters = Parameters
    mutates = True
    undoable = True
    needs_container = True

    def plan(self, call: Call, p: Parameters) -> Plan:
        _die(p, "plan")
        if p.file.exists():
            return Plan(False, "it is there already")
        return Plan(True, "it is not there", {"made_by": call.run_id})

    def act(self, call: Call, p: Parameters, plan: Plan) -> Result:
        _die(p, "act")
        time.sleep(p.hang_s)
        if call.attempt <= p.fail:
            raise RetryLater("not yet")
        _log(p, "act")
        if not p.lie:
            p.file.write_text(plan.saved["made_by"])
        _die(p, "acted")
        return Result(Outcome.CHANGED, "made", {"attempt": call.attempt})

    def verify(self, call: Call, p: Parameters, plan: Plan) -> bool:
        _die(p, "verify")
        return p.file.exists()

    def undo(self, call: Call, p: Parameters, saved: Mapping[str, Any]) -> Result:
        _die(p, "undo")
        if not p.file.exists():
            return Result(Outcome.UNCHANGED, "it is gone already")
        assert saved["made_by"] == call.run_id
        _log(p, "undo")
        p.file.unlink()
        _die(p, "undone")
        return Result(Outcome.CHANGED, "removed")


def _log(p: Parameters, what: str) -> None:
    with p.file.with_suffix(".log").open("a") as log:
        log.write(f"{what}\n")


def _die(p: Parameters, point: str) -> None:
    marker = p.file.with_suffix(".died")
    if p.die == point and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


action = Touch()
