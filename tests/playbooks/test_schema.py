"""Loading playbooks: every fault is found, told with file and line, and nothing wrong gets through."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from scene import no_secrets, written

from playbooks.document import json_schema
from playbooks.schema import SHIPPED, load, read
from tocsin.errors import ConfigError

GOOD = """\
name: good
match:
  rules: [shell]
steps:
  - id: one
    uses: probe.touch
    with: {file: /tmp/x}
"""


def problems(tmp_path: Path, text: str, **options: object) -> list[str]:
    file = tmp_path / "p.yml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load([file], **options)  # type: ignore[arg-type]
    return [f"{p.line}: {p.text}" for p in caught.value.problems]


def test_a_good_one_loads(tmp_path: Path) -> None:
    (playbook,) = written(tmp_path, GOOD)
    assert playbook.name == "good" and len(playbook.revision) == 12
    assert playbook.steps[0].timeout_s == 30


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("name: good", "name: Good One", "1: name: "),
        ("name: good", "name: good\ncoolness: 1", "2: coolness: is not a field here"),
        ("name: good", "name: good\ncooldwn: {}", "2: cooldwn: is not a field here; did you mean 'cooldown'?"),
        ("name: good", "name: good\nmode: off", "2: a bare off means true or false"),
        ("name: good", "name: good\nmode: 'off'", "2: mode: must be 'disabled', 'dry-run'"),
        ("name: good", "name: 7", "1: name: must be a text, not 7"),
        ("name: good", "name: Good", "1: name: must be of lower case letters, digits and '-', not 'Good'"),
        ("name: good", f"name: {'X' * 99}", "'-', not '" + "X" * 39 + "..."),
        ("  - id: one", "  - id: one\n    approve: true", "6: steps[0].approve: must be a mapping, not True"),
        ("  rules: [shell]", "  rules: shell", "3: match.rules: must be a list, not 'shell'"),
        ("  rules: [shell]", "  rules: []", "3: match.rules: must not be empty"),
        ("name: good", "name: good\nname: again", "2: the key 'name' stands here twice"),
        ("name: good", "name: good\non: 1", "2: a bare on means"),
        ("  rules: [shell]", "  {}", "2: match: is empty: it would match every alert"),
        ("  rules: [shell]", "  rules: []", "3: match.rules: "),
        ("  rules: [shell]", "  severity: '>=hgih'", "3: match.severity: must be like"),
        ("  rules: [shell]", "  severity: '>critical'", "3: match.severity: '>critical' is no level at all"),
        ("  rules: [shell]", "  severity: 7", "3: match.severity: "),
        (
            "  rules: [shell]",
            "  where: [{field: a.b, equals: 1}]",
            "3: match.where[0]: 'a.b' is not a field of an event",
        ),
        (
            "  rules: [shell]",
            "  where:\n    - {field: container.nam, equals: x}",
            "4: match.where[0]: 'container.nam' is not a field of an event; did you mean 'container.name'?",
        ),
        ("  rules: [shell]", "  where: [{field: container.name}]", "3: match.where[0]: needs exactly one operator"),
        (
            "  rules: [shell]",
            "  where: [{field: container.name, equals: a, in: [b]}]",
            "3: match.where[0]: needs exactly one operator",
        ),
        (
            "  rules: [shell]",
            "  where: [{field: container.name, matches: a}]",
            "3: match.where[0].matches: is not a field here",
        ),
        (
            "  rules: [shell]",
            "  where: [{field: container.name, exists: false}]",
            "3: match.where[0].exists: can only be true",
        ),
        ("  rules: [shell]", "  where: [{field: process.pid, equals: '7'}]", "can never be '7'"),
        ("  rules: [shell]", "  where: [{field: process.pid, equals: true}]", "can never be True"),
        ("  rules: [shell]", "  where: [{field: container.name, gte: 7}]", "gte compares numbers"),
        ("  rules: [shell]", "  where: [{field: process.pid, contains: x}]", "contains looks into texts"),
        ("  rules: [shell]", "  where: [{field: container.name, cidr: 10.0.0.0/8}]", "cidr takes addresses"),
        ("  rules: [shell]", "  where: [{field: source.ip, cidr: 10.0.0.300/8}]", "does not appear to be an IPv4"),
        ("  rules: [shell]", "  where: [{field: source.ip, not_in: 10.0.0.1}]", "match.where[0].not_in: "),
        ("probe.touch", "probe.tuch", "6: steps[0].uses: there is no action 'probe.tuch'; did you mean probe.touch"),
        (
            "{file: /tmp/x}",
            "{file: /tmp/x, fiel: 1}",
            "7: steps[0].with.fiel: is not a parameter; did you mean 'file'?",
        ),
        ("{file: /tmp/x}", "{}", "7: steps[0].with.file: is missing"),
        ("{file: /tmp/x}", "{file: /tmp/x, fail: many}", "7: steps[0].with.fail: "),
        ("{file: /tmp/x}", "{file: '{{ container.nam }}'}", "7: steps[0].with.file: 'container.nam' is not a field"),
        ("{file: /tmp/x}", "{file: '{{ container.name'}", "7: steps[0].with.file: is not a template"),
        ("{file: /tmp/x}", "{file: '${secret:KEY}'}", "7: steps[0].with.file: may not hold a secret"),
        ("{file: /tmp/x}", "{file: /tmp/x}\n    if: steps.one.changed", "8: steps[0].if: the step 'one' has not ended"),
        ("{file: /tmp/x}", "{file: /tmp/x}\n    if: user.nam", "8: steps[0].if: 'user.nam' is not a field"),
        ("{file: /tmp/x}", "{file: /tmp/x}\n    timeout: 10", "8: steps[0].timeout: must be a duration such as 10s"),
        ("{file: /tmp/x}", "{file: /tmp/x}\n    undo: {after: 1w}", "8: steps[0].undo.after: must be a duration"),
        ("{file: /tmp/x}", "{file: /tmp/x}\n    undo: {after: 0s}", "8: steps[0].undo.after: must be longer"),
        ("{file: /tmp/x}", "{file: /tmp/x}\n    on_error: ignore", "8: steps[0].on_error: "),
        ("{file: /tmp/x}", "{file: /tmp/x}\n    retry: {times: 3}", "8: steps[0].retry.times: is not a field here"),
        ("{file: /tmp/x}", "{file: /tmp/x}\n  - {id: one, uses: probe.post}", "8: steps[1]: the id 'one' is taken"),
        ("{file: /tmp/x}", "{file: /tmp/x}\n  - {id: two, uses: probe.post, undo: {after: 1m}}", "has no inverse"),
        ("{file: /tmp/x}", "{file: /tmp/x}\ncooldown: {key: '{{ steps.one.changed }}', for: 1m}", "no step 'one'"),
        ("{file: /tmp/x}", "{file: /tmp/x}\nconcurrency: {key: '{{ x }}'}", "8: concurrency.key: 'x' is not a field"),
        ("{file: /tmp/x}", "{file: /tmp/x}\nlimits: {max_targets: 0, per: 1m}", "8: limits.max_targets: "),
        (
            "{file: /tmp/x}",
            "{file: /tmp/x}\non_failure: [{uses: probe.post, id: one}]",
            "8: on_failure[0]: the id 'one'",
        ),
        (GOOD, "- a\n", "1: must hold exactly one YAML mapping"),
        (GOOD, "name: [", "is not YAML"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new))
    assert any(problem in text for text in found), found
    assert len(found) == 1, found


def test_all_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(GOOD.replace("probe.touch", "x.y").replace("rules: [shell]", "rules: [none]"))
    (tmp_path / "b.yml").write_text(GOOD.replace("name: good", "name: other\nmode: maybe"))
    with pytest.raises(ConfigError) as caught:
        load([tmp_path], rules=["shell"])
    assert [(Path(p.file).name, p.line) for p in caught.value.problems] == [("a.yml", 3), ("a.yml", 6), ("b.yml", 2)]


def test_a_rule_that_does_not_exist(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD, rules=["shells", "egress"])
    assert found == ["3: match.rules[0]: there is no rule 'shell'; did you mean 'shells'?"]


def test_a_name_is_taken_once_but_a_later_file_of_the_same_name_stands_in(tmp_path: Path) -> None:
    first, second = tmp_path / "shipped", tmp_path / "own"
    for directory in (first, second):
        directory.mkdir()
    (first / "a.yml").write_text(GOOD)
    (second / "b.yml").write_text(GOOD)
    with pytest.raises(ConfigError, match="the name 'good' is taken by"):
        load([first, second])
    (second / "b.yml").rename(second / "a.yml")
    (second / "a.yml").write_text(GOOD + "mode: dry-run\n")
    (only,) = load([first, second])
    assert only.document.mode == "dry-run"


def test_secrets_are_looked_for_when_it_is_loaded(tmp_path: Path) -> None:
    text = GOOD + '  - {id: two, uses: probe.post, with: {url: "${secret:HOOK}"}}\n'
    assert problems(tmp_path, text, secrets=no_secrets) == [
        "8: steps[1].with.url: settings: the secret 'HOOK' is not set"
    ]
    asked: list[str] = []
    load([tmp_path], secrets=lambda name: asked.append(name) or "https://hidden.test")
    assert asked == ["HOOK"]
    (tmp_path / "p.yml").write_text("mode: disabled\n" + text)
    load([tmp_path], secrets=no_secrets)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("${secret:}", "a secret is written"),
        ("${ secret:X }", "a secret is written"),
        ("https://x/{{ container.name }}", "takes no template"),
    ],
)
def test_what_may_hold_a_secret_is_plain(tmp_path: Path, url: str, problem: str) -> None:
    text = GOOD + f'  - {{id: two, uses: probe.post, with: {{url: "{url}"}}}}\n'
    assert any(problem in p for p in problems(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "d.yml").mkdir()
    with pytest.raises(ConfigError, match=r"d\.yml: cannot be read"):
        load([tmp_path])


def test_a_directory_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: is not there"):
        load([tmp_path / "none"])
    assert load([tmp_path]) == []


def test_shipped_playbooks_load_without_secrets_and_name_rules_that_exist() -> None:
    rules = [p.stem for p in (SHIPPED.parents[1] / "correlator" / "rules").glob("*.yml")]
    found = load([SHIPPED], secrets=no_secrets, rules=rules)
    assert [p.name for p in found] == ["contain-interactive-shell", "cut-unexpected-egress", "notify"]
    assert [s.uses for s in found[0].steps] == ["docker.pause", "docker.disconnect", "docker.collect"]
    assert found[0].steps[0].undo_after_s == 900


def test_the_revision_is_the_files_own(tmp_path: Path) -> None:
    file = tmp_path / "p.yml"
    file.write_text(GOOD)
    before = read(file).revision
    file.write_text(GOOD + "# a comment\n")
    assert read(file).revision != before


def test_the_json_schema_knows_what_people_write() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert {"name", "match", "steps", "on_failure"} <= set(schema["properties"])
    step = schema["$defs"]["Step"]["properties"]
    assert {"id", "uses", "with", "if", "undo"} <= set(step)
    assert schema["$defs"]["Where"]["additionalProperties"] is False


def test_the_example_in_the_documentation_loads(tmp_path: Path) -> None:
    page = (SHIPPED.parents[1] / "docs" / "playbooks.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (playbook,) = written(tmp_path, example)
    assert [s.id for s in playbook.steps] == ["freeze", "evidence", "cut"]
