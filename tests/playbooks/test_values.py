"""Templates and conditions: values only, known names only, and an error for what the alert lacks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbooks.values import MAX_CHARS, Condition, Scope, Template, ValueProblem, compiled, filled

SCOPE = Scope(steps=("freeze",), later=("cut",))
NAMES: dict[str, Any] = {
    "container": {"id": "ab", "labels": {"team.name": "shop", "keys": "k"}},
    "process": {"args": ["sh", "-i"], "pid": 5, "interactive": True, "name": "sh"},
    "steps": {"freeze": {"changed": True, "outcome": "changed", "data": {"n": 1}}},
    "playbook": {"name": "p"},
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ container.id }}", "ab"),
        ("{{ process.pid }}", 5),
        ("{{ process.args }}", ["sh", "-i"]),
        ("{{ process.args[1] }} in {{ container.id }}", "-i in ab"),
        ("{{ process.args | join(' ') | upper }}", "SH -I"),
        ("{{ container.labels['team.name'] }}", "shop"),
        ("{{ container.labels.keys }}", "k"),
        ("{{ process.parent.name | default('nobody') }}", "nobody"),
        ("{{ steps.freeze.data.n }}{{ playbook.name }}", "1p"),
    ],
)
def test_it_gives_values(source: str, value: Any) -> None:
    assert Template(source, SCOPE).fill(NAMES) == value


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ container.idd }}", "container.idd"),
        ("{{ container }}", "not a field"),
        ("{{ nothing }}", "not a field"),
        ("{{ process.__class__.__mro__ }}", "not a field"),
        ("{{ process.args.pop() }}", "no call"),
        ("{{ ''.format(process) }}", "no call"),
        ("{% for x in process.args %}{% endfor %}", "no for"),
        ("{% set x = 1 %}", "no assign"),
        ("{% include '/etc/passwd' %}", "no include"),
        ("{{ 'x' * 1000000000 }}", "no mul"),
        ("{{ 9 ** 9 ** 9 }}", "no pow"),
        ("{{ process.name | center(1000000000) }}", "no filter"),
        ("{{ process.name is sameas(process) }}", "no test"),
        ("{{ container.labels[process.name] }}", "may look only at"),
        ("{{ steps.cut.changed }}", "only earlier steps"),
        ("{{ steps.other.changed }}", "no step 'other'"),
        ("{{ steps.freeze.color }}", "a step has"),
        ("{{ error.step }}", "only in on_failure"),
        ("{{ playbook.secret }}", "playbook has"),
        ("{{ container.id", "not a template"),
    ],
)
def test_what_is_not_allowed_is_refused_when_it_is_loaded(source: str, problem: str) -> None:
    with pytest.raises(ValueProblem, match=problem.replace("(", r"\(")):
        Template(source, SCOPE)


@pytest.mark.parametrize("source", ["{{ user.name }}", "x {{ user.name }}", "{{ container.labels.none }}"])
def test_what_the_alert_lacks_is_named(source: str) -> None:
    with pytest.raises(ValueProblem, match=r"(user\.name|container\.labels\.none) is absent in this alert"):
        Template(source, SCOPE).fill(NAMES)


def test_the_text_is_bounded() -> None:
    long = {"process": {"name": "x" * (MAX_CHARS + 1)}}
    for source in ("{{ process.name }}", "a{{ process.name }}"):
        with pytest.raises(ValueProblem, match="more than"):
            Template(source, SCOPE).fill(long)


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("steps.freeze.changed", True),
        ("not steps.freeze.changed", False),
        ("steps.freeze.outcome == 'changed' and process.pid > 4", True),
        ("process.name in ['sh', 'bash']", True),
        ("user.name is defined", False),
        ("steps.freeze.data.n == 2 or container.id == 'ab'", True),
    ],
)
def test_conditions(source: str, holds: bool) -> None:
    assert Condition(source, SCOPE).holds(NAMES) is holds


@pytest.mark.parametrize("source", ["user.name", "user.name == 'x'", "process.pid > 'a'", "not user.name"])
def test_conditions_fail_closed(source: str) -> None:
    with pytest.raises(ValueProblem):
        Condition(source, SCOPE).holds(NAMES)


@pytest.mark.parametrize("source", ["steps.freeze.changed }} {{ container.id", "1 +", "", "{{ container.id }}"])
def test_a_condition_is_one_expression(source: str) -> None:
    with pytest.raises(ValueProblem):
        Condition(source, SCOPE)


def test_values_inside_lists_and_mappings() -> None:
    made = compiled({"a": ["{{ process.pid }}", 1], "b": {"c": "{{ container.id }}!"}}, SCOPE)
    assert filled(made, NAMES) == {"a": [5, 1], "b": {"c": "ab!"}}
    with pytest.raises(ValueProblem, match="may not be a template"):
        compiled({"{{ container.id }}": 1}, SCOPE)


@given(st.text(max_size=200))
def test_what_an_attacker_chose_is_never_evaluated(text: str) -> None:
    names = NAMES | {"process": {"name": text + "{{ container.id }}{% raw %}"}}
    assert Template("<{{ process.name }}>", SCOPE).fill(names) == f"<{names['process']['name']}>"


@given(st.text(alphabet="{}%#|()[]'\".stepfrz chng=!~*0a", max_size=40))
def test_any_text_is_either_refused_or_harmless(source: str) -> None:
    for make in (Template, Condition):
        try:
            made = make(source, SCOPE)
        except ValueProblem:
            continue
        try:
            made.fill(NAMES) if isinstance(made, Template) else made.holds(NAMES)
        except ValueProblem:
            continue
