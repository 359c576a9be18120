"""The compiled evaluator against an oracle written another way: straight over the Sigma text, with Python's re."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correlator import sample
from correlator.compile import Matcher, compiled
from correlator.conditions import ConditionReader
from correlator.fields import as_text, find
from correlator.ruleset import LogSource, Rule
from correlator.tree import Node
from correlator.verdict import verdict
from ecs_mappings.event import Event, encode
from ecs_mappings.template import field_paths
from tocsin import strict_yaml
from tocsin.errors import Problem

EXEC = LogSource("tocsin.process", "exec")


def tree(detection: dict[str, Any], ecs: bool = True) -> Node:
    text = f"detection: {json.dumps(detection)}"
    (document,) = strict_yaml.loads(text.encode(), "rule.yml")
    problems: list[Problem] = []
    node = ConditionReader("rule.yml", ecs, problems).tree(document["detection"])
    assert node is not None, problems
    return node


def rule(node: Node, name: str = "rule") -> Rule:
    return Rule(name, name, name, "low", "event", "rule.yml", 1, (), logsource=EXEC, tree=node)


def matches(detection: dict[str, Any], *partials: dict[str, Any], ecs: bool = True) -> list[bool]:
    function = compiled([rule(tree(detection, ecs))])
    return [bool(function(sample.event([partial], 0, EXEC))) for partial in partials]


@pytest.mark.parametrize(
    ("field", "value", "yes", "no"),
    [
        ("process.name", "Bash", ["bash", "BASH"], ["bashx", ""]),
        ("process.name|cased", "Bash", ["Bash"], ["bash"]),
        ("process.name", ["sh", "bash"], ["sh", "bash"], ["ash"]),
        ("process.name", "a*b", ["ab", "aXXb", "a\nb"], ["abc", "a"]),
        ("process.name", "ab*ba", ["abba", "abXba"], ["aba"]),
        ("process.name", "a?c", ["abc", "a\nc", "aéc"], ["ac", "abbc"]),
        ("process.name", r"a\*c", ["a*c"], ["abc"]),
        ("process.name", "*", ["x", ""], []),
        ("process.name|contains|all", ["a", "b"], ["xbxa"], ["a", "b"]),
        ("process.name|startswith", ["/tmp/", "/dev/shm/"], ["/tmp/x", "/DEV/SHM/x"], ["/x/tmp/"]),
        ("process.name|endswith", "/sh", ["/bin/sh"], ["/bin/bash", "sh"]),
        ("process.name|contains", "a*b", ["xaxbx"], ["ba"]),
        ("process.name|re", "^a.c$", ["abc"], ["ABC", "a\nc", "abcd"]),
        ("process.name|re|i", "^a.c$", ["ABC"], ["abcd"]),
        ("process.name|re|s", "^a.c$", ["a\nc"], ["abcd"]),
        ("process.name|re|m", "^b$", ["a\nb"], ["ab"]),
        ("process.name|windash|contains", " -a", ["x -a", "x /a", "x \u2013a"], ["xa"]),
        ("process.name|base64offset|contains", "foobar", ["Zm9vYmFy", "xxZvb2Jhcg", "Zm9vYmFyIA=="], ["foobar"]),
        ("process.name|neq", "sh", ["bash"], ["sh", "SH"]),
        ("process.pid", 7, [7], [8]),
        ("process.pid", "7", [7], [70]),
        ("process.pid", [7, 8], [8], [9]),
        ("process.pid|startswith", "7", [7, 71], [17]),
        ("process.pid|gte", 7, [7, 8], [6]),
        ("process.pid|lt", 7, [6], [7]),
        ("process.interactive", True, [True], [False]),
        ("process.interactive", "true", [True], [False]),
        ("user.id", 0, ["0"], ["00", "10"]),
        ("destination.ip", "10.0.0.1", ["10.0.0.1", "::ffff:10.0.0.1"], ["10.0.0.11"]),
        ("destination.ip", "2001:db8::1", ["2001:db8:0:0::1"], ["2001:db8::2"]),
        ("destination.ip|cidr", ["10.0.0.0/8", "fc00::/7"], ["10.9.9.9", "fd00::1", "::ffff:10.1.1.1"], ["11.0.0.1"]),
        ("process.args", "-i", [["sh", "-I"]], [["-ii"], []]),
        ("process.args|contains", ["evil", "worse"], [["a", "so EVIL"]], [["a"]]),
        ("process.args|startswith", "/tmp", [["a", "/tmp/x"]], [["a/tmp"]]),
        ("process.args|endswith|cased", "X", [["aX"]], [["ax"]]),
        ("process.args|re", "^x$", [["a", "x"]], [["ax"]]),
        ("process.args", "x*y", [["a", "xzy"]], [["ax"]]),
        ("container.labels.a.b", "c", ["C"], ["d"]),
    ],
)  # fmt: skip
def test_what_a_value_means(field: str, value: Any, yes: list[Any], no: list[Any]) -> None:
    path = field.split("|")[0]
    found = matches({"a": {field: value}, "condition": "a"}, *[{path: x} for x in [*yes, *no]])
    assert found == [True] * len(yes) + [False] * len(no)


@pytest.mark.parametrize(
    ("condition", "missing", "there"),
    [
        ({"process.name": None}, True, False),
        ({"process.name|exists": False}, True, False),
        ({"process.name|exists": True}, False, True),
        ({"process.name": ""}, False, False),
        ({"process.name": "*"}, False, True),
        ({"process.name|neq": "z"}, True, True),
        ({"process.name|re": ".*"}, False, True),
        ({"process.name": [None, "x"]}, True, True),
    ],
)
def test_a_missing_field(condition: dict[str, Any], missing: bool, there: bool) -> None:
    assert matches({"a": condition, "condition": "a"}, {}, {"process.name": "x"}) == [missing, there]


def test_a_negation_holds_for_a_missing_field() -> None:
    found = matches(
        {"a": {"process.name": "x"}, "condition": "not a"}, {}, {"process.name": "x"}, {"process.name": "z"}
    )
    assert found == [True, False, True]


def test_an_empty_list_is_missing() -> None:
    assert matches({"a": {"process.args": None}, "condition": "a"}, {"process.args": []}, {"process.args": ["x"]}) == [
        True,
        False,
    ]


def test_a_field_is_compared_with_another() -> None:
    same = {"process": {"name": "sh", "parent": {"name": "SH"}}}
    other = {"process": {"name": "sh", "parent": {"name": "bash"}}}
    assert matches({"a": {"process.name|fieldref": "process.parent.name"}, "condition": "a"}, same, other, {}) == [
        True,
        False,
        False,
    ]
    ends = {"a": {"process.parent.name|fieldref|endswith": "process.name"}, "condition": "a"}
    assert matches(ends, same, other) == [True, True]


def test_lists_of_objects_are_searched_through() -> None:
    chain = {"tocsin.process.ancestors": [{"name": "a"}, {"executable": "/usr/sbin/nginx"}]}
    condition = {"a": {"tocsin.process.ancestors.executable|endswith": "/nginx"}, "condition": "a"}
    assert matches(condition, chain, {"tocsin.process.ancestors": [{"name": "nginx"}]}, {}) == [True, False, False]


def test_no_text_of_a_rule_becomes_code() -> None:
    evil = '\'); raise SystemExit #\n"""\\'
    found = matches({"a": {"process.name": evil}, "condition": "a"}, {"process.name": evil}, {"process.name": "x"})
    assert found == [True, False]


def test_only_rules_of_the_events_kind_are_asked() -> None:
    always = tree({"a": {"event.id|exists": True}, "condition": "a"})
    rules = [
        rule(always, "exec"),
        Rule("all", "", "", "low", "event", "", 1, (), logsource=LogSource("tocsin.process"), tree=always),
        Rule("net", "", "", "low", "event", "", 1, (), logsource=LogSource("tocsin.network", "connect"), tree=always),
    ]
    matcher = Matcher(rules)
    for source, names in [
        (EXEC, ["exec", "all"]),
        (LogSource("tocsin.process", "exit"), ["all"]),
        (LogSource("tocsin.network", "connect"), ["net"]),
        (LogSource("tocsin.network", "listen"), []),
        (LogSource("tocsin.file", "open"), []),
    ]:
        assert [x.name for x in matcher.match(sample.event([{}], 0, source))] == names


def test_a_long_hostile_text_cannot_hide_what_a_pattern_finds() -> None:
    """The patterns of a field share one automaton: filling its memory must not make it miss."""
    patterns = [rf"(a|b)*a(a|b){{{n}}}c{n}$" for n in range(10, 16)]
    nodes = [tree({"a": {"process.command_line|re": p}, "condition": "a"}) for p in patterns]
    function = compiled([rule(node, str(i)) for i, node in enumerate(nodes)])
    text = "".join("ab"[(i * i // 7 + i // 3) % 2] for i in range(100_000)) + "a" + "b" * 12 + "c12"
    assert [x.name for x in function(sample.event([{"process.command_line": text}], 0, EXEC))] == ["2"]


# the oracle


@dataclass(frozen=True)
class Condition:
    text: str
    holds: Any
    """Names of the selections that hold -> verdict."""


TEXTS = st.text(alphabet="abAB*?\\/é", max_size=5)
WORDS = st.text(alphabet="abAB/é", max_size=5)
NUMBERS = st.lists(st.integers(0, 4), min_size=1, max_size=2)
FLAGS = st.sampled_from([[True], [False]])
NETWORKS = st.sampled_from([["10.0.0.0/8"], ["::/1"], ["10.0.0.0/31", "fe80::/10"]])
ITEMS = st.one_of(
    st.tuples(
        st.sampled_from(["process.name", "process.args", "tocsin.process.ancestors.name"]),
        st.sampled_from(["", "|contains", "|startswith", "|endswith", "|cased", "|contains|cased", "|neq"]),
        st.lists(TEXTS.filter(bool), min_size=1, max_size=3),
    ),
    st.tuples(
        st.sampled_from(["process.name", "process.args"]),
        st.sampled_from(["|contains|all", "|re", "|re|i"]),
        st.lists(WORDS.filter(bool), min_size=1, max_size=2),
    ),
    st.tuples(st.just("process.pid"), st.sampled_from(["", "|gt", "|lte"]), NUMBERS),
    st.tuples(st.just("process.interactive"), st.just(""), FLAGS),
    st.tuples(st.just("destination.ip"), st.just("|cidr"), NETWORKS),
    st.tuples(st.sampled_from(["process.name", "process.args", "process.pid"]), st.just("|exists"), FLAGS),
    st.tuples(st.sampled_from(["process.name", "process.args", "user.name"]), st.just(""), st.just([None])),
)  # fmt: skip
MAPS = st.lists(ITEMS, min_size=1, max_size=2, unique_by=lambda item: item[0] + item[1]).map(
    lambda items: {f + m: v if len(v) > 1 else v[0] for f, m, v in items}
)
SELECTIONS = st.one_of(MAPS, st.lists(MAPS, min_size=1, max_size=2))


def conditions() -> st.SearchStrategy[Condition]:
    leaf = st.sampled_from(
        [
            Condition("s1", lambda on: "s1" in on),
            Condition("s2", lambda on: "s2" in on),
            Condition("t1", lambda on: "t1" in on),
            Condition("1 of s*", lambda on: "s1" in on or "s2" in on),
            Condition("all of them", lambda on: {"s1", "s2", "t1"} <= on),
        ]
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            inner.map(lambda c: Condition(f"not ({c.text})", lambda on: not c.holds(on))),
            st.tuples(inner, inner).map(
                lambda p: Condition(f"({p[0].text}) and {p[1].text}", lambda on: p[0].holds(on) and p[1].holds(on))
            ),
            st.tuples(inner, inner).map(
                lambda p: Condition(f"({p[0].text} or ({p[1].text}))", lambda on: p[0].holds(on) or p[1].holds(on))
            ),
        ),
        max_leaves=4,
    )


EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "process.name": WORDS,
        "process.args": st.lists(WORDS, max_size=3),
        "process.pid": st.integers(0, 4),
        "process.interactive": st.booleans(),
        "destination.ip": st.sampled_from(["10.0.0.1", "10.0.0.2", "::1", "fe80::1", "::ffff:10.0.0.1", "fd00::1"]),
        "tocsin.process.ancestors": st.lists(st.fixed_dictionaries({}, optional={"name": WORDS}), max_size=2),
        "user.name": WORDS,
    },
)


def oracle_values(event: dict[str, Any], field: str) -> list[Any]:
    if field == "tocsin.process.ancestors.name":
        return [x["name"] for x in event.get("tocsin.process.ancestors", []) if "name" in x]
    value = event.get(field)
    return value if isinstance(value, list) else [] if value is None else [value]


def oracle_pattern(text: str) -> str:
    out, i = "", 0
    while i < len(text):
        if text[i] == "\\" and i + 1 < len(text) and text[i + 1] in "*?\\":
            out += re.escape(text[i + 1])
            i += 1
        else:
            out += {"*": ".*", "?": "."}.get(text[i], re.escape(text[i]))
        i += 1
    return out


def oracle_one(values: list[Any], modifiers: list[str], wanted: Any) -> bool:
    if "exists" in modifiers:
        return bool(values) is wanted
    if wanted is None:
        return not values
    if "re" in modifiers:
        flags = re.IGNORECASE if "i" in modifiers else 0
        return any(re.search(wanted, v, flags) for v in values)
    if "cidr" in modifiers:
        addresses = [ipaddress.ip_address(v) for v in values]
        plain = [getattr(a, "ipv4_mapped", None) or a for a in addresses]
        return any(a in ipaddress.ip_network(wanted) for a in plain)
    if "gt" in modifiers:
        return any(v > wanted for v in values)
    if "lte" in modifiers:
        return any(v <= wanted for v in values)
    if isinstance(wanted, bool | int):
        return wanted in values
    pattern = oracle_pattern(wanted)
    before, after = (
        "contains" in modifiers or "endswith" in modifiers,
        "contains" in modifiers or "startswith" in modifiers,
    )
    pattern = (".*" if before else "") + pattern + (".*" if after else "")
    # lower() on both sides, as the engine states it; re.IGNORECASE folds a few letters more
    if "cased" not in modifiers:
        return any(re.fullmatch(pattern.lower(), as_text(v).lower(), re.DOTALL) for v in values)
    return any(re.fullmatch(pattern, as_text(v), re.DOTALL) for v in values)


def oracle_selection(event: dict[str, Any], selection: Any) -> bool:
    if isinstance(selection, list):
        return any(oracle_selection(event, x) for x in selection)
    for key, wanted in selection.items():
        field, *modifiers = key.split("|")
        verdicts = [
            oracle_one(oracle_values(event, field), modifiers, w)
            for w in (wanted if isinstance(wanted, list) else [wanted])
        ]
        holds = all(verdicts) if "all" in modifiers else any(verdicts)
        if holds is ("neq" in modifiers):
            return False
    return True


@settings(max_examples=400, deadline=None)
@given(SELECTIONS, SELECTIONS, SELECTIONS, conditions(), st.lists(EVENTS, min_size=1, max_size=5))
def test_the_compiled_rule_agrees_with_the_oracle(
    s1: Any, s2: Any, t1: Any, condition: Condition, events: list[dict[str, Any]]
) -> None:
    used = {"s1": s1, "s2": s2, "t1": t1}
    everything = " and (all of them or not all of them)"
    node = tree({**used, "condition": f"({condition.text}){everything}"})
    function = compiled([rule(node)])
    for content in events:
        event = sample.event([content], 0, EXEC)
        on = {name for name, selection in used.items() if oracle_selection(content, selection)}
        expected = bool(condition.holds(on))
        assert bool(function(event)) is expected
        assert verdict(node, event) is expected


@settings(max_examples=150, deadline=None)
@given(
    SELECTIONS, EVENTS, st.sets(st.sampled_from(["process.name", "process.args"])), WORDS, st.lists(WORDS, max_size=2)
)
def test_a_verdict_with_cut_fields_holds_whatever_was_cut_off(
    selection: Any, content: dict[str, Any], cut: set[str], rest: str, more: list[str]
) -> None:
    node = tree({"s": selection, "condition": "s"})
    kept = verdict(node, sample.event([content], 0, EXEC), cut)
    whole = dict(content)
    if "process.name" in cut and "process.name" in whole:
        whole["process.name"] += rest
    if "process.args" in cut and whole.get("process.args"):
        whole["process.args"] = [*whole["process.args"][:-1], whole["process.args"][-1] + rest, *more]
    if kept is not None:
        assert verdict(node, sample.event([whole], 0, EXEC)) is kept


def test_every_field_of_the_contract_can_be_fetched() -> None:
    for path in field_paths():
        if path.endswith(".*"):
            continue
        field = find(path)
        assert field is not None
        function = compiled([rule(tree({"a": {f"{path}|exists": True}, "condition": "a"}))])
        event: Event = sample.event([{}], 0, EXEC)
        assert bool(function(event)) is bool(field.values(event)), path
        assert encode(event)
