"""The outbox and the actions, asked for on the command line; the outbox of a real process of playbooks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from playbooks.ledger import Ledger
from playbooks.records import Message
from tocsin.link import in_use
from tocsin.settings import Settings

Tocsin = Callable[..., Any]


@pytest.fixture
def dead(config: Path, settings: Settings) -> Iterator[str]:
    """Id of a dead message in the ledger of a running process."""
    directory = settings.state("playbooks")
    directory.mkdir(parents=True, mode=0o700)
    now = time.time_ns()
    message = Message(
        id="feedbeef" * 4, run_id="r1", step_id="tell", sender="webhook.post", url="http://127.0.0.1:9/", headers={},
        body=b"{}", sign_with=None, max_attempts=3, backoff_s=60, factor=2, give_up_ns=now, state="dead", attempts=3,
        next_ns=now, created_ns=now, reason="answered \x1b[31m500", ended_ns=now,
    )  # fmt: skip
    ledger = Ledger(directory)
    with ledger.writing() as tx:
        tx.put(message)
    ledger.close()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tocsin", "start", "playbooks", "--config", str(config)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not in_use(settings.socket("playbooks")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    yield message.id
    process.terminate()
    process.wait(20)


def test_a_dead_message_is_shown_and_tried_again(tocsin: Tocsin, dead: str) -> None:
    assert "answered \\x1b[31m500" in tocsin("outbox", "list").out
    assert [row["id"] for row in tocsin("outbox", "list", "--json").rows] == [dead]
    assert tocsin("outbox", "list", "--state", "delivered").out == "no message waits\n"
    unknown = tocsin("outbox", "resend", "0000")
    assert (unknown.code, "there is no such dead message" in unknown.err) == (2, True)
    assert tocsin("outbox", "resend", "feed").out == "feedbeeffeed is tried again now\n"
    assert [row["state"] for row in tocsin("outbox", "list", "--json").rows] == ["pending"]
    assert tocsin("outbox", "resend", "all").out == "there is no dead message\n"


def test_nobody_answers_without_a_process(tocsin: Tocsin) -> None:
    ran = tocsin("outbox", "list")
    assert (ran.code, "error: playbooks does not answer: nobody listens on" in ran.err) == (1, True)


def test_actions_say_what_they_do(tocsin: Tocsin) -> None:
    rows = {row["name"]: row for row in tocsin("actions", "list", "--json").rows}
    assert {"docker.pause", "docker.disconnect", "webhook.post", "slack.send"} <= set(rows)
    for row in rows.values():
        assert row["does"]
        assert all(parameter.get("description") for parameter in row["parameters"].values()), row["name"]
    assert (rows["docker.pause"]["mutates"], rows["docker.pause"]["undoable"]) == (True, True)
    assert rows["webhook.post"]["parameters"]["url"]["required"]
    shown = tocsin("actions", "list").out
    assert "docker.pause  (changes the container, can be taken back)" in shown
    assert "url: string, required. http or https" in shown
