"""What `tocsin approve` and `tocsin deny` share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tocsin.cli._ask import decided_by, full_id, get, post, time_of


def decide(
    decision: Literal["approve", "deny"], given: str | None, by: str | None, config: Path | None, as_json: bool
) -> None:
    """Decides the approval whose id begins so; without an id shows what waits."""
    from tocsin.terminal import print_json, print_text

    if given is None:
        _show_waiting(config, as_json)
        return
    approval = full_id(config, "approvals", given)
    found = post(config, "playbooks", f"/approvals/{approval}?decision={decision}&{decided_by(by)}")
    if as_json:
        print_json(found)
    else:
        print_text(f"{found['state']}: {found['question']} (run {found['run_id'][:12]}, step {found['step_id']})")


def _show_waiting(config: Path | None, as_json: bool) -> None:
    from tocsin.terminal import print_json, print_table

    waiting = get(config, "playbooks", "/approvals?state=pending&limit=1000")
    if as_json:
        for approval in waiting:
            print_json(approval)
        return
    rows = (
        (a["id"], a["run_id"][:12], a["step_id"], time_of(a["deadline_ns"]), a["on_timeout"], a["question"])
        for a in waiting
    )
    print_table(("ID", "RUN", "STEP", "UNTIL", "THEN", "QUESTION"), rows, empty="nothing waits for a person")
