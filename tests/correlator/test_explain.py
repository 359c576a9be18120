from __future__ import annotations

import pytest

from correlator import sample, sigma
from correlator.explain import explain
from correlator.ruleset import LogSource
from tocsin.errors import UsageError

RULES = sigma.load([sigma.SHIPPED])
EXEC = LogSource("tocsin.process", "exec")


def test_a_rule_in_words() -> None:
    said = explain(RULES, "interactive-shell-in-container")
    lines = said.lines()
    assert lines[0].startswith("Interactive shell in a container [high]  ") and lines[0].endswith(".yml:1")
    assert lines[1] == "asked about: tocsin.process, exec"
    assert "    process.interactive is true" in lines
    assert "groups by: container.id" in lines
    assert "test: docker exec -it bash: fires" in lines
    assert said.fields == [
        "container.id", "process.command_line", "process.executable", "process.interactive", "process.name",
    ]  # fmt: skip
    assert said.as_dict()["rule"] == "interactive-shell-in-container"


def test_a_correlation_in_words() -> None:
    said = explain(RULES, "port-scan")
    assert said.asked_about == "at least 20 distinct values of destination.port within 60 s of connection-to-host"
    assert said.group_by == ["container.id", "destination.ip"]
    assert "[connection-to-host]" in said.lines()


@pytest.mark.parametrize("name", [rule.name for rule in RULES.rules])
def test_every_rule_can_be_explained(name: str) -> None:
    assert len(explain(RULES, name).lines()) > 3
    assert explain(RULES, name, sample.event([{}], 0, EXEC)).matches is not None


def test_an_event_shows_each_condition_with_its_value() -> None:
    process = {"executable": "/bin/bash", "command_line": "bash\x1b[2J", "interactive": False}
    said = explain(RULES, "interactive-shell-in-container", sample.event([{"process": process}], 0, EXEC))
    assert said.matches is False
    lines = said.lines()
    assert any(x.startswith("no ") and x.endswith("process.interactive is true   <- 'false'") for x in lines)
    assert any(line.startswith("yes ") and line.endswith("<- '/bin/bash'") for line in lines)
    assert lines[-1] == "does not match"
    assert not any("\x1b" in line for line in lines)


def test_a_matching_event_and_one_whose_field_was_cut() -> None:
    process = {"executable": "/bin/x", "command_line": "long", "interactive": True}
    event = sample.event([{"process": process, "tocsin.truncated": ["process.command_line"]}], 0, EXEC)
    said = explain(RULES, "interactive-shell-in-container", event)
    assert said.matches is None and said.lines()[-1] == "cannot be decided: a field was cut"
    shell = sample.event([{"process": {**process, "executable": "/bin/sh"}}], 0, EXEC)
    assert explain(RULES, "interactive-shell-in-container", shell).matches is True


def test_an_unknown_rule_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no rule 'shel'.*reverse-shell"):
        explain(RULES, "shel")
