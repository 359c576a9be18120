"""What a run that died leaves behind."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import UNSET

from sensor.runstate import RunState
from tocsin.errors import TocsinError

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_the_first_run_has_nothing_to_report(tmp_path: Path) -> None:
    state = RunState(tmp_path / "deep" / "run.state", "run1", NOW)
    assert state.previous is None
    state.close(clean=True)
    assert (tmp_path / "deep" / "run.state").stat().st_mode & 0o777 == 0o600


def test_a_run_that_ended_in_order_leaves_no_report(tmp_path: Path) -> None:
    state = RunState(tmp_path / "s", "run1", NOW)
    state.assigned(7)
    state.close(clean=True)
    state = RunState(tmp_path / "s", "run2", NOW)
    assert state.previous is None
    state.close(clean=True)


@pytest.mark.parametrize(("assigned", "acknowledged", "count"), [(7, 5, 2), (7, 7, UNSET)])
def test_after_kill_9_the_next_run_says_what_is_missing(
    tmp_path: Path, assigned: int, acknowledged: int, count: object
) -> None:
    pid = os.fork()
    if pid == 0:
        state = RunState(tmp_path / "s", "run1", NOW)
        state.assigned(assigned)
        state.acknowledged(acknowledged)
        state.alive(NOW + timedelta(seconds=30))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    state = RunState(tmp_path / "s", "run2", NOW + timedelta(seconds=40))
    report = state.previous
    assert report and report.loss
    assert (report.action, report.loss.stage, report.loss.count) == ("events_lost", "restart", count)
    assert (report.start, report.end) == (NOW + timedelta(seconds=30), NOW + timedelta(seconds=40))
    assert "run1" in str(report.reason)
    state.close(clean=True)


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"y" * 200, bytes(64)])
def test_a_file_that_is_none_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    state = RunState(tmp_path / "s", "run1", NOW)
    assert state.previous is None
    state.close(clean=True)


def test_two_sensors_on_one_state_are_refused(tmp_path: Path) -> None:
    state = RunState(tmp_path / "s", "run1", NOW)
    with pytest.raises(TocsinError, match="another sensor runs here"):
        RunState(tmp_path / "s", "run2", NOW)
    state.close(clean=True)


def test_a_state_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(TocsinError, match=r"s cannot be opened: Is a directory"):
        RunState(tmp_path / "s", "run1", NOW)
