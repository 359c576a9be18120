"""The engine's laws: same log, same alerts, whatever the batches, the repeats and the restarts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correlator import groups as groups_module
from correlator import sample, sigma
from correlator.engine import Engine
from correlator.ruleset import LogSource, RuleSet
from ecs_mappings.event import Event, decode, encode

RULES_YAML = """\
title: Shell
id: 11111111-2222-4333-8444-555555555555
taxonomy: ecs
level: high
tags: [attack.execution, attack.t1059.004]
logsource: {category: process_creation}
tests:
  - {name: fires, expect: true, events: [{process.name: sh}]}
  - {name: silent, expect: false, events: [{process.name: ls}]}
detection: {a: {process.name: sh}, condition: a}
"""
SCAN_YAML = """\
title: base
id: 21111111-2222-4333-8444-555555555555
name: base
taxonomy: ecs
logsource: {category: network_connection}
detection: {a: {destination.port|gt: 0}, condition: a}
---
title: Scan
id: 31111111-2222-4333-8444-555555555555
taxonomy: ecs
level: medium
correlation:
  type: value_count
  rules: [base]
  group-by: [container.id]
  timespan: 10s
  condition: {gte: 3, field: destination.port}
tests:
  - {name: three, alerts: 1, events: [{destination.port: 1}, {destination.port: 2}, {destination.port: 3}]}
  - {name: one, expect: false, events: [{destination.port: 1}]}
"""
LONGS = [("a", str(2**63 - 1).encode()), ("b", str(2**63).encode())]
EXEC, CONNECT = LogSource("tocsin.process", "exec"), LogSource("tocsin.network", "connect")


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RuleSet:
    directory: Path = tmp_path_factory.mktemp("rules")
    (directory / "shell.yml").write_text(RULES_YAML)
    (directory / "scan.yml").write_text(SCAN_YAML)
    return sigma.load([directory])


def shell(at_s: float, event_id: str, container: str = "c1", more: Mapping[str, Any] | None = None) -> bytes:
    partial = {"at_s": at_s, "event.id": event_id, "process.name": "sh", "container.id": container}
    return encode(sample.event([partial, more or {}], 0, EXEC))


def connection(at_s: float, event_id: str, port: int, container: str = "c1") -> bytes:
    partial = {"at_s": at_s, "event.id": event_id, "destination.port": port, "container.id": container}
    return encode(sample.event([partial], 0, CONNECT))


def lost(at_s: float, start_s: float, end_s: float) -> bytes:
    def at(seconds: float) -> str:
        return (sample.START + timedelta(seconds=seconds)).isoformat()

    partial = {
        "at_s": at_s,
        "event": {"id": f"lost-{at_s}", "start": at(start_s), "end": at(end_s)},
        "tocsin.loss": {"stage": "kernel", "count": 3},
    }
    return encode(sample.event([partial], 0, LogSource("tocsin.sensor", "events_lost")))


def summary(alerts: list[Event]) -> list[tuple[str, str, int]]:
    return [
        (str(a.rule and a.rule.id), a.event.action, a.tocsin.alert.count) for a in alerts if a.tocsin and a.tocsin.alert
    ]


def test_repeats_are_folded_and_the_last_count_is_right(rules: RuleSet) -> None:
    engine = Engine(rules, group_span_s=60)
    alerts = engine.feed(0, [shell(i, f"e{i}") for i in range(7)])
    assert summary(alerts) == [("shell", "opened", 1), ("shell", "repeated", 2), ("shell", "repeated", 4)]
    assert engine.feed(7, [connection(64, "x", 1)]) == []
    (closing,) = engine.feed(8, [connection(66, "y", 1)])
    assert summary([closing]) == [("shell", "repeated", 7)]
    opened = alerts[0]
    assert opened.tocsin and opened.tocsin.alert and closing.tocsin and closing.tocsin.alert
    assert {a.tocsin.alert.group for a in alerts if a.tocsin and a.tocsin.alert} == {opened.event.id}
    assert closing.tocsin.alert.group == opened.event.id
    seen = closing.tocsin.alert.first_seen, closing.tocsin.alert.last_seen
    assert seen == (sample.START, sample.START + timedelta(seconds=6))
    assert len({a.event.id for a in [*alerts, closing]}) == 4


def test_a_new_group_opens_after_the_span_and_per_key(rules: RuleSet) -> None:
    engine = Engine(rules, group_span_s=60)
    alerts = engine.feed(0, [shell(0, "a"), shell(1, "b", "c2"), shell(59, "c"), shell(61, "d")])
    assert summary(alerts) == [
        ("shell", "opened", 1),
        ("shell", "opened", 1),
        ("shell", "repeated", 2),
        ("shell", "opened", 1),
    ]


def test_an_alert_carries_what_playbooks_need(rules: RuleSet) -> None:
    engine = Engine(rules, clock_ns=lambda: int((sample.START.timestamp() + 0.25) * 1e9))
    event: dict[str, Any] = {"process": {"pid": 7, "command_line": "sh -c \x1b[31mred\u202e"}, "user.name": "root"}
    event |= {"tocsin.latency.captured_ms": 1.5, "tocsin.process.tty": "pts0", "host.name": "h"}
    (alert,) = engine.feed(0, [shell(0, "a", more=event)])
    assert alert == decode(encode(alert))
    content = json.loads(encode(alert))
    assert content["event"]["kind"] == "alert" and content["event"]["severity"] == 73
    assert content["rule"] == {"id": "shell", "uuid": "11111111-2222-4333-8444-555555555555", "name": "Shell"}
    assert content["threat"]["technique"] == {"id": ["T1059"], "subtechnique": {"id": ["T1059.004"]}}
    assert content["threat"]["tactic"] == {"id": ["TA0002"], "name": ["Execution"]}
    assert content["tocsin"]["latency"] == {"captured_ms": 1.5, "matched_ms": 250.0}
    assert content["tocsin"]["process"] == {"tty": "pts0"}
    assert content["tocsin"]["alert"]["events"] == ["a"] and content["tocsin"]["alert"]["key"] == ["c1"]
    assert content["message"] == (
        "Shell: sh -c \\x1b[31mred\\u202e (pid 7, user root) in container test of image test"
    )  # fmt: skip
    assert content["host"] == {"name": "h"} and content["container"]["id"] == "c1"


def test_a_correlation_names_its_events(rules: RuleSet) -> None:
    alerts = Engine(rules).feed(0, [connection(i, f"e{i}", i + 1) for i in range(3)])
    (alert,) = alerts
    assert alert.tocsin and alert.tocsin.alert
    assert alert.tocsin.alert.events == ["e0", "e1", "e2"]
    assert (alert.event.start, alert.event.end) == (sample.START, sample.START + timedelta(seconds=2))


def test_an_event_delivered_twice_counts_once(rules: RuleSet) -> None:
    engine = Engine(rules)
    lines = [shell(0, "a"), connection(0, "x", 1), connection(1, "y", 2), connection(2, "z", 3)]
    first = engine.feed(0, lines)
    assert len(first) == 2
    assert engine.feed(4, lines) == []
    assert summary(engine.feed(8, [shell(1, "b")])) == [("shell", "repeated", 2)]


def test_records_below_the_next_offset_are_skipped(rules: RuleSet) -> None:
    engine = Engine(rules)
    lines = [shell(i, f"e{i}") for i in range(4)]
    engine.feed(10, lines[:3])
    assert summary(engine.feed(11, lines[1:])) == [("shell", "repeated", 4)]
    assert engine.counts["skipped"] == 2


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"@timestamp": 3}', b'{"a":' * 5000, b"x" * 300_000],
)
def test_a_line_that_is_no_event_is_counted_and_passed_over(rules: RuleSet, line: bytes) -> None:
    engine = Engine(rules)
    assert len(engine.feed(0, [line, shell(0, "a")])) == 1
    assert engine.counts["malformed"] == 1 and engine.next_offset == 2


def test_losses_mark_the_alerts_whose_span_they_touch(rules: RuleSet) -> None:
    engine = Engine(rules, group_span_s=1)
    scan = [connection(1, "a", 1), connection(5, "b", 2), connection(9, "c", 3)]
    alerts = engine.feed(0, [lost(6, 3, 4), *scan, shell(20, "s1"), lost(40, 21, 30), shell(30, "s2")])
    found = [
        (str(a.rule and a.rule.id), a.tocsin.alert.evidence_complete) for a in alerts if a.tocsin and a.tocsin.alert
    ]
    assert found == [("scan", False), ("shell", True), ("shell", False)]


def test_a_hole_in_the_log_is_counted_and_marks_alerts(rules: RuleSet) -> None:
    engine = Engine(rules, group_span_s=1)
    engine.feed(0, [shell(0, "a")])
    (alert,) = engine.feed(5, [shell(10, "b")])
    assert engine.counts["missing"] == 4
    assert alert.tocsin and alert.tocsin.alert and not alert.tocsin.alert.evidence_complete


def test_a_cut_field_marks_the_alert_and_counts_what_could_not_be_decided(rules: RuleSet) -> None:
    engine = Engine(rules)
    cut = {"tocsin.truncated": ["process.name"]}
    (alert,) = engine.feed(0, [shell(0, "a", more=cut)])
    assert alert.tocsin and alert.tocsin.alert and not alert.tocsin.alert.evidence_complete
    engine.feed(1, [shell(1, "b", more={**cut, "process.name": "s"})])
    assert engine.fired["shell"]["undecided"] == 1


def test_a_clock_set_back_does_not_stop_groups_from_closing(rules: RuleSet) -> None:
    engine = Engine(rules, group_span_s=60)
    future = encode(sample.event([{"@timestamp": "2100-01-01T00:00:00Z", "event.id": "f"}], 0, CONNECT))
    engine.feed(0, [future, shell(0, "a"), shell(1, "b"), shell(2, "c")])
    assert summary(engine.feed(4, [connection(70, "x", 1)])) == [("shell", "repeated", 3)]


def test_after_the_clock_was_set_back_nothing_is_taken_for_a_repeat(rules: RuleSet) -> None:
    engine = Engine(rules)
    engine.feed(0, [shell(90_000, "a"), shell(90_001, "b"), shell(90_002, "c")])
    assert summary(engine.feed(3, [shell(0, "d")])) == [("shell", "repeated", 3), ("shell", "opened", 1)]


def test_open_groups_are_bounded(rules: RuleSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_module, "MAX_GROUPS", 5)
    engine = Engine(rules)
    engine.feed(0, [shell(i / 100, f"e{i}", f"c{i}") for i in range(50)])
    assert len(engine.groups) == 5 and engine.groups.evicted == 45


def test_long_group_keys_are_cut_but_stay_apart(rules: RuleSet) -> None:
    alerts = Engine(rules).feed(0, [shell(0, "a", "x" * 9000 + "1"), shell(0, "b", "x" * 9000 + "2")])
    keys = [a.tocsin.alert.key[0] for a in alerts if a.tocsin and a.tocsin.alert]
    assert len(set(keys)) == 2 and all(len(key) <= 256 for key in keys)


def test_an_alert_never_outgrows_a_document(rules: RuleSet) -> None:
    long = {"process": {"args": ["a" * 60_000] * 4, "command_line": "c" * 10_000}}
    (alert,) = Engine(rules).feed(0, [shell(0, "a", more={**long, "message": "m" * 9000})])
    assert len(encode(alert)) < 256 * 1024


def test_no_text_of_an_event_can_make_an_alert_too_long(rules: RuleSet) -> None:
    hostile = {
        "process": {
            "executable": "\x01" * 8000,
            "working_directory": "\x01" * 8000,
            "parent": {"executable": "\x01" * 4000, "command_line": "\x01" * 4000},
        },
        "tocsin.process.ancestors": [{"name": "\x01" * 200, "executable": "\x01" * 700}] * 6,
    }
    room = 256 * 1024 - len(shell(0, "a", more={**hostile, "tocsin.container.exec_id": ""}))
    event = shell(0, "a", more={**hostile, "tocsin.container.exec_id": "x" * room})
    (alert,) = Engine(rules).feed(0, [event])
    assert alert.event.action == "opened" and len(encode(alert)) <= 256 * 1024
    assert alert.tocsin and "tocsin.container.exec_id" in (alert.tocsin.truncated or ())


def test_a_number_that_no_snapshot_could_hold_is_no_event(rules: RuleSet) -> None:
    engine = Engine(rules)
    fine, over = (shell(0, name, "x", {"process.pid": 99}).replace(b"99", number) for name, number in LONGS)
    assert len(engine.feed(0, [fine])) == 1 and engine.feed(1, [over]) == []
    assert engine.counts["malformed"] == 1 and engine.snapshot()


def test_groups_keep_little_of_a_long_event(rules: RuleSet) -> None:
    """Many groups with long command lines cost neither the memory nor the snapshots of all those command lines."""
    engine = Engine(rules)
    long = {"process": {"args": ["\x01"] * 4000, "command_line": "\x01 " * 4000}, "container.labels": {"k": "v" * 200}}
    (opened,) = engine.feed(0, [shell(0, "e0", "c0", more=long)])
    assert opened.process and len(opened.process.command_line or "") == 8000  # what is told at once is whole
    engine.feed(1, [shell(i / 100, f"e{i}", f"c{i}", more=long) for i in range(1, 100)])
    assert len(engine.groups) == 100 and len(engine.snapshot()) < 100 * 4096
    engine.feed(100, [shell(2, "again", "c0", more=long), shell(2.1, "thrice", "c0", more=long)])
    closed = [a for a in engine.feed(102, [connection(3600, "x", 1)]) if a.event.action == "repeated"]
    assert [a.tocsin.alert.count for a in closed if a.tocsin and a.tocsin.alert] == [3]
    assert "process.command_line" in (closed[0].tocsin.truncated or () if closed[0].tocsin else ())


def test_a_damaged_snapshot_is_refused(rules: RuleSet) -> None:
    engine = Engine(rules)
    engine.feed(0, [shell(0, "a")])
    data = engine.snapshot()
    for bad in (b"", data[:-1], data[:40] + b"x" + data[41:]):
        with pytest.raises(ValueError, match="damaged"):
            Engine(rules).restore(bad)


@pytest.mark.parametrize("span_s", [600, 900])
def test_with_other_rules_the_log_is_judged_again_and_what_was_told_stays_told(rules: RuleSet, span_s: float) -> None:
    engine = Engine(rules)
    log = [shell(0, "a"), shell(300, "b"), shell(330, "c")]
    told = engine.feed(0, log)
    other = Engine(RuleSet(rules.rules, "other"), group_span_s=span_s)
    assert other.restore(engine.snapshot(told)) == told and other.next_offset is None
    assert other.feed(1, log[1:]) == []
    assert summary(other.feed(3, [shell(360, "d")])) == [("shell", "repeated", 4)]
    fewer = Engine(RuleSet(tuple(rule for rule in rules.rules if rule.name != "shell"), "fewer"))
    fewer.restore(engine.snapshot())
    assert len(fewer.groups) == 0


LOG = st.lists(
    st.one_of(
        st.builds(shell, st.integers(0, 100), st.sampled_from("abcdefgh"), st.sampled_from(["c1", "c2"])),
        st.builds(
            connection, st.integers(0, 100), st.sampled_from("uvwxyz"), st.integers(1, 5), st.sampled_from(["c1", "c2"])
        ),
        st.builds(lost, st.integers(0, 100), st.integers(0, 50), st.integers(50, 100)),
        st.just(b"torn"),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(log=LOG, data=st.data())
def test_batches_crashes_and_replays_change_nothing(rules: RuleSet, log: list[bytes], data: st.DataObject) -> None:
    """What a crashed engine had put out stays; restored from any snapshot and replayed, all ids are the same."""

    def documents(alerts: list[Event]) -> dict[str, Event]:
        return {alert.event.id: alert for alert in alerts}

    def engine() -> Engine:
        return Engine(rules, group_span_s=20, clock_ns=lambda: 0)

    expected = documents(engine().feed(0, log))
    running = engine()
    out: dict[str, Event] = {}
    running.feed(0, [])
    kept = running.snapshot()
    at = 0
    while at < len(log):
        size = data.draw(st.integers(1, len(log)), label="batch")
        out |= documents(running.feed(at, log[at : at + size]))
        at = min(len(log), at + size)
        match data.draw(st.sampled_from(["go on", "keep", "crash", "again"]), label="then"):
            case "keep":
                kept = running.snapshot()
            case "crash":
                running = engine()
                running.restore(kept)
                assert running.next_offset is not None
                at = max(0, running.next_offset - data.draw(st.integers(0, 5), label="behind"))
            case "again":
                at = max(0, at - data.draw(st.integers(0, at), label="behind"))
    assert out == expected
