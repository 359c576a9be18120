"""Searching and following events, and the story of an alert, over a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tocsin = Callable[..., Any]
Write = Callable[..., None]
Make = Callable[..., bytes]


def test_search_is_oldest_first_and_filtered(tocsin: Tocsin, written: Write, event: Make) -> None:
    written(
        event(process={"name": "sh", "command_line": "sh -i"}),
        event(process={"name": "curl", "command_line": "curl http://x"}),
        event(process={"name": "curl"}, container={"id": "cd" * 32, "name": "db"}),
        event("tocsin.network", "connect", process={"name": "curl"}),
    )
    assert [r["process"]["name"] for r in tocsin("events", "search", "--dataset", "process", "--json").rows] == [
        "sh", "curl", "curl",
    ]  # fmt: skip
    assert len(tocsin("events", "search", "--where", "process.name=curl", "--container", "web", "--json").rows) == 2
    assert (
        len(tocsin("events", "search", "--where", "process.name=curl", "--where", "process.name=sh", "--json").rows)
        == 4
    )
    assert len(tocsin("events", "search", "--action", "connect", "--since", "10m", "--json").rows) == 1
    assert tocsin("events", "search", "--until", "10m").out == "no event matches\n"
    shown = tocsin("events", "search", "--text", "sh -i").out
    assert "web" in shown
    assert "sh -i" in shown


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--since", "yesterday"], "'yesterday' is no time"),
        (["--where", "process.name"], "write field=value"),
        (["--where", "process.nmae=x"], "process.nmae"),
        (["--container", "ab"], ""),
        (["--limit", "0"], "--limit"),
    ],
)
def test_wrong_filters_exit_2(
    tocsin_process: Tocsin, written: Write, event: Make, args: list[str], expected: str
) -> None:
    written(event())
    ran = tocsin_process("events", "search", *args)
    if expected:
        assert ran.code == 2
        assert expected in ran.err
    assert "Traceback" not in ran.err


ATTACK = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\u009b31m[bold red]x[/]"


def test_no_escape_sequence_reaches_the_terminal(tocsin: Tocsin, written: Write, event: Make) -> None:
    written(event(process={"name": "sh", "command_line": ATTACK}, container={"id": "ab" * 32, "name": ATTACK}))
    for ran in (tocsin("events", "search"), tocsin("events", "search", "--json")):
        assert not set(ran.out) & set("\x1b\x07\r\u202e\u009b")
        assert ran.out.count("\n") == 1
    assert "[bold red]x[/]" in tocsin("events", "search").out  # not read as markup
    assert tocsin("events", "search", "--json").rows[0]["process"]["command_line"] == ATTACK


@pytest.fixture
def incident(written: Write, event: Make) -> None:
    def alert(name: str, group: str, count: int, action: str = "opened") -> bytes:
        detail = {
            "group": group, "key": ["ab"], "severity": "high", "count": count, "events": ["trigger"],
            "first_seen": "2025-11-20T12:00:00+00:00", "last_seen": f"2025-11-20T12:00:{count:02}+00:00",
        }  # fmt: skip
        return event(
            "tocsin.alert", action, rule={"id": "shell", "name": "Shell in a container"},
            event={"id": name, "kind": "alert"},
            tocsin={"alert": detail, "latency": {"captured_ms": 1.5, "matched_ms": 3}},
        )  # fmt: skip

    written(
        event(
            event={"id": "trigger"}, process={"name": "sh", "command_line": "sh -i"},
            tocsin={"process": {"ancestors": [{"executable": "/usr/bin/python3"}, {"executable": "/sbin/init"}]}},
        ),
        alert("aaaa1", "aaaa1", 1),
        alert("aaaa1-2", "aaaa1", 2, "repeated"),
        alert("bbbb1", "bbbb1", 1),
        event(
            "tocsin.response", "docker.pause",
            tocsin={
                "latency": {"decided_ms": 5, "acted_ms": 20, "verified_ms": 22.5},
                "playbook": {"name": "contain", "revision": "0" * 12, "run_id": "r1", "step": "freeze",
                             "mode": "enforce", "outcome": "changed", "verified": True, "alert_id": "aaaa1"},
            },
        ),
    )  # fmt: skip


@pytest.mark.usefixtures("incident")
def test_alerts_are_folded(tocsin: Tocsin) -> None:
    rows = tocsin("alerts", "list", "--json").rows
    assert {(r["id"], r["count"], r["rule"]) for r in rows} == {("aaaa1", 2, "shell"), ("bbbb1", 1, "shell")}
    table = tocsin("alerts", "list").out
    assert "Shell in a container" in table
    assert len(table.splitlines()) == 3
    assert tocsin("alerts", "list", "--severity", "low", "--json").rows == []
    assert len(tocsin("alerts", "list", "--rule", "shell", "--json").rows) == 2


@pytest.mark.usefixtures("incident")
def test_the_story_of_an_alert(tocsin: Tocsin) -> None:
    (story,) = tocsin("alerts", "show", "aaaa", "--json").rows
    assert story["timeline_ms"] == {"captured": 1.5, "matched": 3, "decided": 5, "acted": 20, "verified": 22.5}
    assert story["ancestors"] == ["sh -i", "/usr/bin/python3", "/sbin/init"]
    assert [r["event"]["action"] for r in story["responses"]] == ["docker.pause"]
    assert story["newest"]["tocsin"]["alert"]["count"] == 2
    text = tocsin("alerts", "show", "aaaa1-2").out  # a repeat tells the same story
    assert "2 times" in text
    assert "contain/freeze docker.pause → changed, verified" in text


@pytest.mark.usefixtures("incident")
@pytest.mark.parametrize(("given", "expected"), [("zz", "no such alert"), ("trigger", "not an alert"), ("", "no such")])
def test_no_such_alert(tocsin: Tocsin, given: str, expected: str) -> None:
    ran = tocsin("alerts", "show", given)
    assert (ran.code, expected in ran.err) == (2, True)


def test_tail_shows_each_new_event_once_and_ends_with_130(config: Path, written: Write, event: Make) -> None:
    tail = subprocess.Popen(
        [sys.executable, "-P", "-m", "tocsin", "events", "tail", "--json", "--interval", "0.1", "--since", "1m"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TOCSIN_CONFIG": str(config)},
    )  # fmt: skip
    assert tail.stdout is not None
    written(event(event={"id": "one"}))
    assert json.loads(tail.stdout.readline())["event"]["id"] == "one"
    written(event(event={"id": "two"}))
    assert json.loads(tail.stdout.readline())["event"]["id"] == "two"
    time.sleep(0.4)
    tail.send_signal(signal.SIGINT)
    out, err = tail.communicate(timeout=10)
    assert (tail.returncode, out, err) == (130, "", "")


def test_a_reader_that_goes_away_is_no_error(config: Path, written: Write, event: Make) -> None:
    for _ in range(40):
        written(*(event(process={"command_line": "x" * 500}) for _ in range(20)))
    search = f"{sys.executable} -P -m tocsin events search --limit 800 --json | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {search}"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "TOCSIN_CONFIG": str(config)},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
