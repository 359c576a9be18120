"""One supervisor a run directory, and what it publishes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tocsin import running
from tocsin.errors import UsageError


def test_only_the_living_supervisors_word_counts(tmp_path: Path) -> None:
    state = {"pid": os.getpid(), "processes": {}}
    with running.only_one(tmp_path):
        assert running.read_state(tmp_path) is None
        running.publish(tmp_path, state)
        assert running.read_state(tmp_path) == state
        with pytest.raises(UsageError, match=rf"runs here already \(pid {os.getpid()}\)"), running.only_one(tmp_path):
            pass
    assert running.read_state(tmp_path) is None
    running.publish(tmp_path, state)
    assert running.read_state(tmp_path) is None  # nobody holds the lock


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": 1}'])
def test_a_damaged_file_is_none(tmp_path: Path, text: str) -> None:
    with running.only_one(tmp_path):
        (tmp_path / running.STATE_FILE).write_text(text)
        assert running.read_state(tmp_path) is None


def test_what_cannot_be_published_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running.publish(tmp_path / "gone", {"pid": 1})
    assert "cannot be written" in caplog.text
