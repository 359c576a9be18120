"""Both log formats: what machines read, what people read, and that log text cannot forge lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from ecs_mappings.event import ECS_VERSION as CONTRACT_VERSION
from tocsin import logs


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_version_with_the_contract() -> None:
    assert logs.ECS_VERSION == CONTRACT_VERSION


def test_json_keeps_the_ecs_fields_of_extra() -> None:
    out = io.StringIO()
    logs.configure("forwarder", "json", out)
    logging.getLogger("forwarder.spool").warning("spool is %s", "full", extra={"event.action": "spool_full", "x": 1})
    entry = json.loads(out.getvalue())
    assert entry["message"] == "spool is full"
    assert entry["log.level"] == "warning"
    assert entry["event.action"] == "spool_full"
    assert entry["service.node.name"] == "forwarder"
    assert entry["@timestamp"].endswith("Z")
    assert "x" not in entry


def test_a_failure_carries_its_trace() -> None:
    out = io.StringIO()
    logs.configure("x", "json", out)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.exception("it failed")
    entry = json.loads(out.getvalue())
    assert (entry["error.type"], entry["error.message"]) == ("ValueError", "boom")
    assert "test_logs" in entry["error.stack_trace"]


@pytest.mark.parametrize("style", ["json", "human"])
def test_log_text_cannot_forge_a_line_or_drive_the_terminal(style: logs.Style) -> None:
    out = io.StringIO()
    logs.configure("x", style, out)
    logging.warning("name %s", "a\n12:00:00 all is well\x1b[2J" + "b" * 20_000)
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()
    assert len(out.getvalue()) < 9_000


def test_people_get_lines_and_files_get_json() -> None:
    terminal, file = Terminal(), io.StringIO()
    logs.configure("x", None, terminal)
    logging.error("bad")
    assert "\x1b[31merror: \x1b[0mbad" in terminal.getvalue()
    logs.configure("x", None, file)
    logging.info("good")
    assert json.loads(file.getvalue())["message"] == "good"
