"""What the loader takes, and what it refuses with file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from correlator import sample, sigma, testing
from correlator.compile import Matcher
from correlator.ruleset import LogSource, RuleSet
from tocsin.errors import ConfigError

SIGMAHQ = Path(__file__).parent / "sigmahq"

HEAD = """\
title: A rule
id: 11111111-2222-4333-8444-555555555555
taxonomy: ecs
level: high
logsource: {category: process_creation, product: linux}
tests:
  - {name: fires, expect: true, events: [{process.name: x}]}
  - {name: silent, expect: false, events: [{process.name: z}]}
detection:
"""
FIRST = HEAD.count("\n") + 1


def load(directory: Path, **files: str) -> RuleSet:
    for name, text in files.items():
        (directory / f"{name}.yml").write_text(text)
    return sigma.load([directory])


def problems(directory: Path, **files: str) -> list[tuple[str, int, str]]:
    with pytest.raises(ConfigError) as caught:
        load(directory, **files)
    return [(Path(p.file).stem, p.line, p.text) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("detection", "line", "text"),
    [
        ("  a: {process.name: x}\n  condition: a and 1 of foo*", 1, "1 of foo*: no selection has such a name"),
        ("  a: {process.name: x}\n  condition: a and all of foo*", 1, "all of foo*: no selection has such a name"),
        ("  a: {process.name: x}\n  condition: a and b", 1, "there is no such selection"),
        ("  a: {process.name: x}\n  b: {process.name: z}\n  condition: a", 1, "'b' is not used"),
        ("  notes: {process.name: x}\n  condition: notes", 0, "would be read as an operator"),
        ("  order: {process.name: x}\n  condition: order", 0, "would be read as an operator"),
        ("  Android: {process.name: x}\n  condition: Android", 0, "would be read as an operator"),
        ("  a: {process.nme: x}\n  condition: a", 0, "did you mean process.name?"),
        ("  a: {Image: x}\n  condition: a", 0, "unknown field 'Image': no event has it"),
        ("  a: {process.name|foo: x}\n  condition: a", 0, "unknown modifier |foo"),
        ("  a: {process.name|expand: '%x%'}\n  condition: a", 0, "|expand is not supported"),
        ("  a: {process.name|re: '(a'}\n  condition: a", 0, "is invalid"),
        ("  a: {process.name|re: '(a)\\1'}\n  condition: a", 0, "RE2"),
        ("  a: {process.name|re: 'a(?=b)'}\n  condition: a", 0, "RE2"),
        ("  a: [evil, worse]\n  condition: a", 0, "keywords"),
        ("  a: {'|contains': evil}\n  condition: a", 0, "keywords"),
        ("  a: {}\n  condition: a", 0, "the selection is empty"),
        ("  a: {process.name: []}\n  condition: a", 0, "must be a value or a list of values"),
        ("  a: {process.name|contains: ''}\n  condition: a", 0, "matches everything"),
        ("  a: {process.name|gt: 3}\n  condition: a", 0, "not a number"),
        ("  a: {process.pid: x}\n  condition: a", 0, "process.pid is a number"),
        ("  a: {process.interactive: 3}\n  condition: a", 0, "process.interactive is true or false"),
        ("  a: {process.name: true}\n  condition: a", 0, "put quotes around true"),
        ("  a: {destination.ip: 10.0.0}\n  condition: a", 0, "is an address"),
        ("  a: {destination.ip|cidr: 10.0.0.0/33}\n  condition: a", 0, "cidr"),
        ("  a: {'@timestamp': 3}\n  condition: a", 0, "is a time"),
        ("  a: {process.args|fieldref: process.name}\n  condition: a", 0, "not lists"),
        ("  a: {process.name|fieldref: process.nme}\n  condition: a", 0, "unknown field"),
        ("  a: {process.name: x}\n  condition: a | count() > 3", 1, "cannot be read"),
        ("  a: {process.name: x}\n  condition: 2 of a*", 1, "cannot be read"),
        ("  a: {process.name: x}\n  condition: [a, a]", 1, "must be one line of text"),
        ("  a: {process.name: x}", -1, "must be one line of text"),
    ],
)
def test_a_wrong_condition_is_refused_with_its_line(tmp_path: Path, detection: str, line: int, text: str) -> None:
    found = problems(tmp_path, rule=HEAD + detection + "\n")
    assert any(file == "rule" and at in (FIRST + line, FIRST) and text in said for file, at, said in found), found


GOOD = "  a: {process.name: x}\n  condition: a\n"


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("title: A rule\n", "", 1, "no title"),
        ("id: 11111111-2222-4333-8444-555555555555\n", "", 1, "no id"),
        ("id: 11111111-2222-4333-8444-555555555555", "id: nonsense", 2, "UUID"),
        ("level: high\n", "", 1, "no level"),
        ("level: high", "level: severe", 4, "none of informational"),
        ("taxonomy: ecs", "taxonomy: cim", 3, "must be ecs, or sigma"),
        ("level: high", "level: high\nlevel: low", 5, "twice"),
        ("level: high", "lvl: high", 4, "'lvl' means nothing"),
        ("product: linux", "product: windows", 5, "'windows' are not seen here"),
        ("process_creation", "registry_event", 5, "'registry_event' is not seen here"),
        ("tests:", "tests: []\nfields:", 6, "must be a list of tests"),
        ("expect: false", "expect: true", 6, "stays silent"),
        ("[{process.name: x}]", "[{process.nme: x}]", 7, "unknown field 'process.nme'"),
        ("[{process.name: x}]", "[{process.pid: x}]", 7, "Expected `int`"),
        ("[{process.name: x}]", "[]", 7, "events must be a list"),
        ("name: fires", "nom: fires", 7, "unknown key 'nom'"),
        ("expect: true,", "expect: true, alerts: 1,", 7, "either expect"),
        ("level: high", "tags: [attack]\nlevel: high", 4, "namespace"),
        ("level: high", "level: high\nexclude: ingress", 5, "can only be: egress"),
        ("level: high", "level: high\ngroup-by: [process.args]", 5, "no single value"),
        ("title: A rule", "title: on", 1, "on"),
    ],
)
def test_a_wrong_head_is_refused_with_its_line(tmp_path: Path, old: str, new: str, line: int, text: str) -> None:
    assert old in HEAD
    found = problems(tmp_path, rule=(HEAD + GOOD).replace(old, new, 1))
    assert any(file == "rule" and at == line and text in said for file, at, said in found), found


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        one=HEAD + "  a: {process.nme: x, process.exe: z}\n  condition: b\n",
        two="title: [",
        three=HEAD + GOOD,
        four=HEAD + GOOD,
    )
    assert {file for file, _, _ in found} == {"one", "two", "three"}
    assert len([1 for file, _, _ in found if file == "one"]) == 4
    assert any("is taken by" in text for _, _, text in found)


def test_a_missing_directory_is_a_warning(tmp_path: Path) -> None:
    rules = sigma.load([tmp_path / "nowhere"])
    assert [w.text for w in rules.warnings] == ["there is no such directory: no rules from here"]


def test_the_digest_follows_what_the_files_say(tmp_path: Path) -> None:
    first = load(tmp_path, rule=HEAD + GOOD)
    assert load(tmp_path, rule=HEAD + GOOD).digest == first.digest
    assert load(tmp_path, rule=HEAD + GOOD.replace("x", "w")).digest != first.digest


CORRELATION = """\
title: base
id: 21111111-2222-4333-8444-555555555555
name: base
taxonomy: ecs
logsource: {category: process_creation}
detection: {a: {process.name: x}, condition: a}
---
title: many
id: 31111111-2222-4333-8444-555555555555
taxonomy: ecs
level: low
correlation: {type: event_count, rules: [base], group-by: [container.id], timespan: 10s, condition: {gte: 2}}
tests:
  - {name: two, alerts: 1, events: [{process.name: x}, {process.name: x}]}
  - {name: one, expect: false, events: [{process.name: x}]}
"""


def test_a_correlation_and_its_hidden_base(tmp_path: Path) -> None:
    rules = load(tmp_path, many=CORRELATION)
    assert [(rule.name, rule.alerts) for rule in rules.rules] == [("base", False), ("many", True)]
    assert rules.span_s == 10
    assert [rule.name for rule in rules.only("many").rules] == ["base", "many"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("event_count", "temporal", "temporal is not supported"),
        ("event_count", "evnt_count", "evnt_count"),
        ("rules: [base]", "rules: [bse]", "there is no rule 'bse'"),
        ("rules: [base]", "rules: [many]", "is a correlation"),
        ("{gte: 2}", "{lt: 2}", "an upper bound holds from the first event on"),
        ("{gte: 2}", "{gte: 0}", "between 1 and"),
        ("{gte: 2}", "{gte: 2, lt: 9}", "exactly one condition"),
        ("event_count", "value_count", "without field reference"),
        ("timespan: 10s", "timespan: 10x", "10x"),
        ("container.id]", "container.idd]", "unknown field 'container.idd'"),
        ("timespan: 10s", "timespan: 10s, generate: true", "file of its own"),
        ("timespan: 10s", "timespan: 10s, aliases: {}", "correlation.aliases is not supported"),
        ("name: base\n", "", "needs a name"),
    ],
)
def test_a_wrong_correlation_is_refused(tmp_path: Path, old: str, new: str, text: str) -> None:
    found = problems(tmp_path, many=CORRELATION.replace(old, new, 1))
    assert any(text in said for _, _, said in found), found


FILTER = """\
title: allow the backup job
id: 41111111-2222-4333-8444-555555555555
taxonomy: ecs
logsource: {category: process_creation}
filter:
  rules: [rule]
  backup: {container.name: backup}
  condition: not backup
"""


def test_a_filter_takes_events_away_and_never_adds_any(tmp_path: Path) -> None:
    rules = load(tmp_path, rule=HEAD + GOOD, filter=FILTER)
    matcher = Matcher(rules.rules)
    source = LogSource("tocsin.process", "exec")
    cases = [
        ({"process.name": "x"}, 1),
        ({"process.name": "x", "container.name": "backup"}, 0),
        ({"process.name": "z"}, 0),
    ]
    assert [len(matcher.match(sample.event([p], 0, source))) for p, _ in cases] == [n for _, n in cases]


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("[rule]", "[rle]", 6, "there is no rule 'rle' to filter"),
        ("process_creation", "network_connection", 6, "another logsource"),
        ("not backup", "not 1 of bckup*", 8, "no selection has such a name"),
        ("container.name", "container.nme", 7, "unknown field"),
        ("rules: [rule]", "rules: []", 6, "must name rules"),
    ],
)
def test_a_wrong_filter_is_refused(tmp_path: Path, old: str, new: str, line: int, text: str) -> None:
    found = problems(tmp_path, rule=HEAD + GOOD, filter=FILTER.replace(old, new))
    assert any(file == "filter" and at == line and text in said for file, at, said in found), found


def test_sigmahq_rules_load_as_they_are() -> None:
    rules = sigma.load([SIGMAHQ])
    assert len(rules.rules) == len(list(SIGMAHQ.glob("*.yml")))
    assert all(rule.author and rule.uuid for rule in rules.rules)
    texts = {w.text for w in rules.warnings}
    assert texts == {"the rule has no tests", "this rule can never match"}  # LogonId is known, but never there


EXEC, CONNECT = LogSource("tocsin.process", "exec"), LogSource("tocsin.network", "connect")


@pytest.mark.parametrize(
    ("name", "source", "partial", "fires"),
    [
        (
            "proc_creation_lnx_apt_shell_execution",
            EXEC,
            ("/usr/bin/apt", "apt update -o APT::Update::Pre-Invoke::=sh"),
            True,
        ),
        ("proc_creation_lnx_apt_shell_execution", EXEC, ("/usr/bin/apt", "apt update"), False),
        (
            "proc_creation_lnx_python_pty_spawn",
            EXEC,
            ("/usr/bin/python3.11", "python3 -c import pty;pty.spawn('x')"),
            True,
        ),
        ("proc_creation_lnx_python_pty_spawn", EXEC, ("/usr/bin/python3.11", "python3 -c print('pty spawn')"), False),
        ("proc_creation_lnx_susp_sensitive_file_access", EXEC, ("/usr/bin/vim", "vim /etc/nginx.conf"), True),
        (
            "proc_creation_lnx_susp_sensitive_file_access",
            EXEC,
            ("/bin/sed", "sed -ne s/^a//p /etc/mdadm/mdadm.conf"),
            False,
        ),
        ("proc_creation_lnx_cap_setgid", EXEC, ("/usr/sbin/SETCAP", "setcap CAP_SETGID+ep x"), True),
    ],
)
def test_sigmahq_rules_judge_processes(name: str, source: LogSource, partial: tuple[str, str], fires: bool) -> None:
    matcher = Matcher(sigma.load([SIGMAHQ]).rules)
    event = sample.event([{"process": {"executable": partial[0], "command_line": partial[1]}}], 0, source)
    assert (name in [rule.name for rule in matcher.match(event)]) is fires


@pytest.mark.parametrize(
    ("ip", "port", "fires"), [("203.0.113.9", 4444, True), ("203.0.113.9", 80, False), ("10.0.0.1", 4444, False)]
)
def test_sigmahq_rules_judge_connections(ip: str, port: int, fires: bool) -> None:
    matcher = Matcher(sigma.load([SIGMAHQ]).rules)
    event = sample.event([{"destination": {"ip": ip, "port": port}}], 0, CONNECT)
    assert bool(matcher.match(event)) is fires


def test_the_rules_in_the_documentation_load_and_pass(tmp_path: Path) -> None:
    text = (Path(sigma.__file__).parents[1] / "docs" / "rules.md").read_text()
    blocks = re.findall(r"```yaml\n# /etc/tocsin/rules/(\S+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for name, content in blocks:
        (tmp_path / name).write_text(content)
    rules = sigma.load([sigma.SHIPPED, tmp_path])
    assert all(result.passed for result in testing.run(rules.only("miner-by-name")))
