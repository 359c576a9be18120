"""What `status` says of answers it got: problems are to be mended, notes to be known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tocsin import health

CORRELATOR = {
    "ready": True, "pending_alerts": 0, "refused_alerts": 0, "failed": 0, "malformed": 0, "missing": 0, "evicted": 0,
    "late": 0, "undecided": 0,
}  # fmt: skip


def told(look: Callable[[dict[str, Any]], Any], **changed: int | bool) -> list[str]:
    return list(look(CORRELATOR | changed))


def test_a_correlator_without_losses_is_no_news() -> None:
    assert told(health._correlator) == told(health._correlator_notes) == []


@pytest.mark.parametrize("name", ["malformed", "missing", "evicted", "late", "undecided"])
def test_what_was_not_judged_is_a_note(name: str) -> None:
    (note,) = told(health._correlator_notes, **{name: 7})
    assert note.startswith("correlator: 7 ") and note.endswith(f"({name})")


@pytest.mark.parametrize("changed", [{"pending_alerts": 3}, {"refused_alerts": 3}, {"failed": 3}, {"ready": False}])
def test_alerts_that_do_not_get_on_are_a_problem(changed: dict[str, Any]) -> None:
    assert len(told(health._correlator, **changed)) == 1
