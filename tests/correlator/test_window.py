"""Counting against a brute-force oracle: any order within the tolerance, repeats, bounds."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correlator import window as module
from correlator.fields import find
from correlator.ruleset import Window
from correlator.window import SPARE_ENTRIES, TOLERANCE_US, Entry, Key, Windows

S = 1_000_000


def counting(kind: Literal["event_count", "value_count"], count: int, op: Any = "gte", span_s: int = 10) -> Windows:
    field = find("destination.port") if kind == "value_count" else None
    return Windows(Window(kind, ("base",), span_s, op, count, field))


def test_the_nth_event_within_the_span_completes() -> None:
    windows = counting("event_count", 3)
    assert windows.add(("c",), 0, "a", None) is None
    assert windows.add(("c",), 5 * S, "b", None) is None
    evidence = windows.add(("c",), 10 * S, "c", None)
    assert evidence is not None
    assert (evidence.start_us, evidence.end_us, evidence.events) == (0, 10 * S, ["a", "b", "c"])
    assert windows.add(("c",), 20 * S + 1, "d", None) is None


def test_groups_are_counted_apart() -> None:
    windows = counting("event_count", 2)
    assert windows.add(("c", "x"), 0, "a", None) is None
    assert windows.add(("c", "y"), 1, "b", None) is None
    assert windows.add(("c", "x"), 2, "c", None) is not None


@pytest.mark.parametrize(("op", "fires"), [("gte", [0, 1, 1]), ("gt", [0, 0, 1]), ("eq", [0, 1, 0])])
def test_operators(op: str, fires: list[int]) -> None:
    windows = counting("event_count", 2, op)
    assert [int(windows.add((), i, str(i), None) is not None) for i in range(3)] == fires


def test_values_count_once_however_often_they_are_seen() -> None:
    windows = counting("value_count", 3)
    for i, value in enumerate(["80", "443", "80", "443", "80"]):
        assert windows.add((), i, f"e{i}", value) is None
    evidence = windows.add((), 9, "e9", "22")
    assert evidence is not None and evidence.events == ["e3", "e4", "e9"]


def test_a_value_seen_again_counts_from_its_last_sighting() -> None:
    windows = counting("value_count", 2)
    windows.add((), 0, "a", "80")
    windows.add((), 8 * S, "b", "80")
    assert windows.add((), 15 * S, "c", "443") is not None


def test_an_event_told_twice_counts_once() -> None:
    windows = counting("event_count", 2)
    assert windows.add((), 0, "a", None) is None
    assert windows.add((), 0, "a", None) is None
    assert windows.add((), 1, "b", None) is not None


def test_an_event_beyond_the_tolerance_is_counted_as_late() -> None:
    windows = counting("event_count", 1)
    windows.add((), 100 * S, "a", None)
    assert windows.add((), 100 * S - 10 * S - TOLERANCE_US - 1, "b", None) is None
    assert windows.late == 1


def test_after_the_clock_was_set_back_counting_begins_anew() -> None:
    windows = counting("event_count", 2)
    windows.add((), 90_000 * S, "a", None)
    assert windows.add((), 0, "b", None) is None
    assert windows.add((), 1, "c", None) is not None
    assert windows.late == 0 and sum(len(entries) for _, entries in windows.state()) == windows._entries == 2


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 10)
    monkeypatch.setattr(module, "MAX_ENTRIES", 400)
    windows = counting("event_count", 5, span_s=1000)
    for i in range(2000):
        windows.add((str(i % 50),), i * 1000, f"e{i}", None)
    assert len(windows) <= 10 and windows.evicted > 0
    for i in range(2000):
        windows.add(("one",), 2_000_000 + i, f"f{i}", None)
    assert windows.dropped > 0
    assert sum(len(entries) for _, entries in windows.state()) <= 400
    assert len(dict(windows.state())[("one",)]) <= 5 + SPARE_ENTRIES


def test_groups_that_are_over_are_forgotten_without_counting_as_evicted() -> None:
    windows = counting("event_count", 5)
    windows.add(("old",), 0, "a", None)
    windows.add(("new",), 60 * S, "b", None)
    assert len(windows) == 1 and windows.evicted == 0


def test_a_flood_of_one_value_does_not_push_out_the_others() -> None:
    windows = counting("value_count", 3, span_s=60)
    windows.add((), 0, "a", "22")
    windows.add((), 1, "b", "23")
    for i in range(5000):
        windows.add((), 2 + i, f"x{i}", "22")
    assert windows.add((), 6000, "c", "24") is not None


OBSERVED = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 6), st.sampled_from("ab"), st.integers(0, TOLERANCE_US // S)),
    min_size=1,
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(OBSERVED, st.integers(1, 5), st.booleans())
def test_event_count_fires_as_brute_force_says(
    seen: list[tuple[int, int, str, int]], count: int, restart: bool
) -> None:
    """Whatever the order of arrival within the tolerance: some event fires when some span holds enough events."""
    arriving = sorted(enumerate(seen), key=lambda x: x[1][0] + x[1][3])
    windows = counting("event_count", count)
    fired: set[str] = set()
    for i, (at, _, key, _) in arriving:
        if restart:
            windows = again(windows, counting("event_count", count))
        if windows.add((key,), at * S, f"e{i}", None) is not None:
            fired.add(key)
    for key in "ab":
        times = sorted(at for at, _, k, _ in seen if k == key)
        enough = any(sum(1 for t in times if end - 10 <= t <= end) >= count for end in times)
        assert (key in fired) is enough


@settings(max_examples=300, deadline=None)
@given(OBSERVED, st.integers(1, 5), st.booleans())
def test_value_count_fires_as_brute_force_says(
    seen: list[tuple[int, int, str, int]], count: int, restart: bool
) -> None:
    windows = counting("value_count", count)
    for i, (at, value, key, _) in enumerate(sorted(seen, key=lambda x: x[0])):
        before = [x for x in sorted(seen, key=lambda x: x[0])[: i + 1] if x[2] == key]
        told_already = (at, value) in [(x[0], x[1]) for x in before[:-1]]
        distinct = {x[1] for x in before if at - 10 <= x[0] <= at}
        if restart:
            windows = again(windows, counting("value_count", count))
        fired = windows.add((key,), at * S, f"e{i}", str(value)) is not None
        assert fired is (len(distinct) >= count and not told_already)


def again(old: Windows, new: Windows) -> Windows:
    kept = msgspec.msgpack.encode(old.state())
    new.restore(msgspec.msgpack.decode(kept, type=list[tuple[Key, list[Entry]]]))
    return new
