"""The commands about files people write: rules and playbooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tocsin = Callable[..., Any]


def test_the_shipped_rules_are_good(tocsin: Tocsin) -> None:
    ran = tocsin("rules", "check")
    assert ran.code == 0
    assert ran.out.startswith("[ ok ] ")
    rows = tocsin("rules", "test", "--json").rows
    assert len(rows) > 50
    assert all(row["ok"] for row in rows)


def test_one_rule_is_tested_alone(tocsin: Tocsin) -> None:
    rows = tocsin("rules", "test", "reverse-shell", "--json").rows
    assert {row["rule"] for row in rows} == {"reverse-shell"}
    unknown = tocsin("rules", "test", "nope")
    assert (unknown.code, "there is no rule 'nope'" in unknown.err) == (2, True)


def test_a_failing_test_names_its_line(tocsin: Tocsin, tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(
        "title: Mine\ntaxonomy: ecs\nid: 5b1c7d56-5d3b-4f0a-9f0e-3d6c2f6d0c11\n"
        "logsource: {category: process_creation, product: linux}\n"
        "detection:\n  sel:\n    process.executable: foo\n  condition: sel\nlevel: low\n"
        "tests:\n  - name: fires\n    events: [{process.executable: foo}]\n    expect: true\n"
        "  - name: silent\n    events: [{process.executable: bar}]\n    expect: false\n"
        "  - name: too quiet\n    events: [{process.executable: bar}]\n    expect: true\n"
    )
    ran = tocsin("rules", "check", str(tmp_path))
    assert ran.code == 1, ran.err
    assert f"mine: too quiet  {file}:17: stayed silent" in ran.out
    assert [row["passed"] for row in tocsin("rules", "check", str(tmp_path), "--json").rows] == [True, True, False]


def test_rules_are_listed_and_explained(tocsin: Tocsin, tmp_path: Path, event: Callable[..., bytes]) -> None:
    names = [row["name"] for row in tocsin("rules", "list", "--json").rows]
    assert "port-scan" in names
    assert "port-scan" in tocsin("rules", "list").out
    for name in names:
        assert tocsin("rules", "explain", name).code == 0
    file = tmp_path / "event.json"
    file.write_bytes(event(process={"name": "sh", "executable": "/bin/sh", "args": ["sh"], "command_line": "sh"}))
    judged = tocsin("rules", "explain", "interactive-shell-in-container", "--event", f"@{file}")
    assert judged.out.splitlines()[-1] == "does not match"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("@/nowhere", "cannot be read"), ("@/etc/hostname", "is not an event"), ("nope", "there is no such event")],
)
def test_an_event_that_is_none(tocsin: Tocsin, given: str, expected: str) -> None:
    ran = tocsin("rules", "explain", "port-scan", "--event", given)
    assert (ran.code, expected in ran.err) == (2, True)


def test_the_shipped_playbooks_are_good(tocsin: Tocsin) -> None:
    ran = tocsin("playbooks", "check")
    assert ran.code == 0, ran.err
    rows = tocsin("playbooks", "list", "--json").rows
    assert {"contain-interactive-shell", "cut-unexpected-egress", "notify"} <= {row["name"] for row in rows}
    for row in rows:
        assert tocsin("playbooks", "explain", row["name"]).code == 0
        (shown,) = tocsin("playbooks", "explain", row["name"], "--json").rows
        assert shown["name"] == row["name"]


def test_the_ceiling_shows_in_the_list(tocsin: Tocsin, config: Path) -> None:
    config.write_text(config.read_text() + '[playbooks]\nmode = "dry-run"\n')
    assert {row["mode"] for row in tocsin("playbooks", "list", "--json").rows} <= {"dry-run", "disabled"}


def test_words_of_a_playbook(tocsin: Tocsin) -> None:
    text = tocsin("playbooks", "explain", "contain-interactive-shell").out
    for words in ("answers   interactive-shell-in-container", "1. freeze: docker.pause", "taken back after 15 min"):
        assert words in text
    unknown = tocsin("playbooks", "explain", "nope")
    assert (unknown.code, "contain-interactive-shell" in unknown.err) == (2, True)


def test_the_schema_is_json_schema(tocsin: Tocsin) -> None:
    schema = json.loads(tocsin("playbooks", "schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"name", "match", "steps"} <= set(schema["required"])


def test_elastic_commands_want_elasticsearch(tocsin: Tocsin) -> None:
    for command in ("setup", "status"):
        ran = tocsin("elastic", command)
        assert (ran.code, "not Elasticsearch" in ran.err) == (2, True)


def test_nobody_answers(tocsin: Tocsin) -> None:
    for args in (["runs", "list"], ["approve"], ["deny", "1"], ["undo", "list"], ["halt"], ["resend", "store"]):
        ran = tocsin(*args)
        assert (ran.code, "nobody listens on" in ran.err) == (1, True)
    status = tocsin("status")
    assert (status.code, "start it with `tocsin up`" in status.out) == (1, True)
    audit = tocsin("audit", "verify")
    assert (audit.code, "holds no ledger" in audit.err) == (1, True)
