"""What every store promises, run over all three: memory, SQLite, and Elasticsearch on a real node."""

from __future__ import annotations

import dataclasses
import random
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import store
from ecs_mappings.event import (
    MAX_DOCUMENT_BYTES,
    AlertDetail,
    Ancestor,
    Container,
    Ecs,
    Endpoint,
    Event,
    EventMeta,
    Process,
    ProcessDetail,
    SecurityContext,
    Tocsin,
    decode,
    encode,
)
from store import Outcome, Page, Query, Store, alerts
from store.memory import MemoryStore
from tocsin.errors import UsageError

START = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

lawful = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    # A real node makes shrinking slow, and its answer is as telling without.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def unique() -> str:
    return uuid.uuid4().hex


def document(mark: str, event_id: str, at_us: int = 0, **parts: Any) -> bytes:
    """An exec event, `at_us` microseconds after START, in the container named `mark`."""
    dataset, kind = parts.pop("dataset", "tocsin.process"), parts.pop("kind", "event")
    container = parts.pop("container", {})
    return encode(
        Event(
            timestamp=START + timedelta(microseconds=at_us),
            ecs=Ecs(),
            event=EventMeta(
                id=event_id, kind=kind, category=["process"], type=["start"], action="exec", dataset=dataset
            ),
            container=Container(**({"id": unique() * 2, "name": mark} | container)),
            **parts,
        )
    )


def ids(page: Page) -> list[str]:
    return [event.event.id for event in page.events]


def pages(store: Store, query: Query) -> Iterator[Page]:
    while True:
        page = store.search(query)
        yield page
        if page.next is None:
            return
        query = dataclasses.replace(query, after=page.next)


def written(store: Store, *documents: bytes) -> list[Outcome]:
    outcomes = [answer.outcome for answer in store.write(documents)]
    store.refresh()
    return outcomes


@lawful
@given(data=st.data())
def test_each_document_is_kept_once_however_it_is_sent(kept: Store, data: st.DataObject) -> None:
    mark = unique()
    numbers = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=60))
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    answers: list[tuple[int, Outcome]] = []
    rest = numbers
    while rest:
        size = sizes[len(answers) % len(sizes)]
        batch, rest = rest[:size], rest[size:]
        taken = kept.write([document(mark, f"{mark}-{number}", number) for number in batch])
        answers += zip(batch, (answer.outcome for answer in taken), strict=True)
    kept.refresh()

    created = Counter(number for number, outcome in answers if outcome is Outcome.CREATED)
    assert created == Counter(set(numbers))
    assert {outcome for _, outcome in answers} <= {Outcome.CREATED, Outcome.EXISTS}
    found = ids(kept.search(Query(container=mark, order="asc")))
    assert found == [f"{mark}-{number}" for number in sorted(set(numbers))]
    assert kept.count(Query(container=mark)) == len(set(numbers))


@lawful
@given(
    times=st.lists(st.integers(0, 4), min_size=1, max_size=25),
    limit=st.integers(1, 7),
    order=st.sampled_from(["asc", "desc"]),
)
def test_paging_returns_each_match_once_in_order(kept: Store, times: list[int], limit: int, order: Any) -> None:
    mark = unique()
    expected = [(at, f"{mark}-{number}") for number, at in enumerate(times)]
    written(kept, *(document(mark, event_id, at) for at, event_id in expected))
    found = [
        event_id for page in pages(kept, Query(container=mark, limit=limit, order=order)) for event_id in ids(page)
    ]
    assert found == [event_id for _, event_id in sorted(expected, reverse=order == "desc")]


def test_paging_is_not_disturbed_by_new_documents(kept: Store) -> None:
    mark = unique()
    written(kept, *(document(mark, f"{mark}-{n}", n) for n in range(6)))
    found = []
    for number, page in enumerate(pages(kept, Query(container=mark, limit=2))):
        found += ids(page)
        written(kept, document(mark, f"{mark}-new-{number}", 100 + number))
    assert found == [f"{mark}-{n}" for n in reversed(range(6))]


def test_first_version_of_a_document_stays(kept: Store) -> None:
    mark = unique()
    first, second = document(mark, mark, 1), document(mark, mark, 2)
    assert written(kept, first, second) == [Outcome.CREATED, Outcome.EXISTS]
    assert written(kept, second) == [Outcome.EXISTS]
    assert decode(kept.get(mark) or b"") == decode(first)


def test_get_of_an_unknown_id_is_none(kept: Store) -> None:
    written(kept, document(unique(), unique()))
    assert kept.get(unique()) is None


def _padded(mark: str, length: int) -> bytes:
    plain = document(mark, mark, process=Process(command_line=""))
    return document(mark, mark, process=Process(command_line="x" * (length - len(plain))))


BAD = {
    "no JSON": (b"{", "not a legal event"),
    "no object": (b"[]", "not a legal event"),
    "empty": (b"", "not a legal event"),
    "no UTF-8": (document("m", "i").replace(b'"exec"', b'"\xff"'), "not a legal event"),
    "no UTF-8 in an unknown field": (document("m", "i")[:-1] + b',"zz":"\xff"}', "utf-8"),
    "deep": (b"[" * 100_000, "not a legal event"),
    "no event.id": (document("m", "i").replace(b'"id":"i",', b""), "`id`"),
    "empty event.id": (document("m", "i").replace(b'"id":"i",', b'"id":"",'), "event.id"),
    "long event.id": (document("m", "i").replace(b'"id":"i",', b'"id":"%s",' % (b"i" * 129)), "event.id"),
    "wrong type": (document("m", "i").replace(b'"exec"', b"7"), "$.event.action"),
    "no time": (document("m", "i").replace(b"@timestamp", b"@time"), "@timestamp"),
    "time before 1970": (document("m", "i").replace(b"2026-", b"1969-"), "@timestamp"),
    "foreign dataset": (document("m", "i", dataset="nginx.access"), "event.dataset"),
    "dataset that leaves its index": (document("m", "i", dataset="tocsin.*,-x"), "event.dataset"),
    "label key with NUL": (document("m", "i", container={"labels": {"a\0b": "c"}}), "container.labels"),
    "long label key": (document("m", "i", container={"labels": {"a" * 2000: "c"}}), "container.labels"),
    "two lines": (document("m", "i").replace(b",", b",\n", 1), "more than one line"),
    "too long": (_padded("m", MAX_DOCUMENT_BYTES + 1), str(MAX_DOCUMENT_BYTES)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_document_is_rejected_alone(kept: Store, name: str) -> None:
    bad, reason = BAD[name]
    mark = unique()
    answers = kept.write([document(mark, f"{mark}-1"), bad, document(mark, f"{mark}-2")])
    assert [a.outcome for a in answers] == [Outcome.CREATED, Outcome.REJECTED, Outcome.CREATED]
    assert reason in answers[1].reason
    kept.refresh()
    assert kept.count(Query(container=mark)) == 2


def test_longest_document_is_kept(kept: Store) -> None:
    mark = unique()
    longest = _padded(mark, MAX_DOCUMENT_BYTES)
    assert len(longest) == MAX_DOCUMENT_BYTES
    assert written(kept, longest) == [Outcome.CREATED]
    assert decode(kept.get(mark) or b"") == decode(longest)


def test_odd_values_do_not_get_a_document_rejected(kept: Store) -> None:
    mark = unique()
    odd = document(
        mark,
        mark,
        destination=Endpoint(ip="no address", port=2**62),
        process=Process(name="\0\x1b[31m\u202e", command_line="\U0001f4a5" * 30_000, args=["a" * 40_000] * 2),
    )
    assert written(kept, odd) == [Outcome.CREATED]
    assert decode(kept.get(mark) or b"") == decode(odd)


def test_unknown_fields_are_kept(kept: Store) -> None:
    mark = unique()
    newer = document(mark, mark)[:-1] + b',"later":{"than":"us"}}'
    assert written(kept, newer) == [Outcome.CREATED]
    assert b'"later":{"than":"us"}' in (kept.get(mark) or b"")


def rich(mark: str) -> bytes:
    """One event with something of every kind in it."""
    return document(
        mark,
        mark,
        123_456,
        message="free text",
        container={
            "id": "0123456789abcdef" * 4,
            "labels": {"com.example.team": "shop", 'odd"key\\*': "x"},
            "security_context": SecurityContext(privileged=False),
        },
        process=Process(
            pid=4711,
            executable="/usr/bin/Curl",
            command_line='curl -d "100%_[*?]\\" http://x/\u00c9',
            args=["curl", "-d", "a,b"],
            start=START + timedelta(microseconds=500),
        ),
        destination=Endpoint(ip="2001:db8::1", port=443),
        tocsin=Tocsin(process=ProcessDetail(ancestors=[Ancestor(name="nginx"), Ancestor(name="init")])),
    )


def where(path: str, *values: str) -> Query:
    return Query(where={path: values})


MATCHING = [
    Query(),
    Query(datasets=["tocsin.process", "tocsin.network"], kinds=["event"]),
    Query(since=START + timedelta(microseconds=123_456)),
    Query(since=START.replace(tzinfo=None), until=START + timedelta(microseconds=123_457)),
    Query(text="curl -D"),
    Query(text="/USR/bin"),
    Query(text="%_[*?]\\"),
    Query(text='"100'),
    Query(text="\u00c9"),
    where("process.pid", "4711"),
    where("process.pid", "1", "4711"),
    where("process.executable", "/usr/bin/Curl"),
    where("process.args", "a,b"),
    where("container.labels.com.example.team", "shop"),
    where('container.labels.odd"key\\*', "x"),
    where("container.security_context.privileged", "false"),
    where("destination.ip", "2001:DB8:0::1"),
    where("destination.port", "443"),
    where("tocsin.process.ancestors.name", "init"),
    where("process.start", "2026-03-01T09:30:00.0005Z"),
    where("process.start", "2026-03-01T10:30:00.000500+01:00"),
    where("@timestamp", "2026-03-01T09:30:00.123456Z"),
    where("event.action", "exec"),
    Query(where={"process.pid": "4711", "destination.port": "443"}),
]
NOT_MATCHING = [
    Query(datasets=["tocsin.network"]),
    Query(datasets=["*"]),
    Query(kinds=["alert"]),
    Query(until=START + timedelta(microseconds=123_456)),
    Query(since=START + timedelta(microseconds=123_457)),
    Query(text="curl%"),
    Query(text="c_rl"),
    Query(text="cu*rl"),
    Query(text="\u00e9"),
    Query(text="' OR 1=1 --"),
    Query(text="free text"),
    where("process.pid", "4712"),
    where("process.executable", "/usr/bin/curl"),
    where("process.executable", "/usr/bin/*"),
    where("process.args", "curl -d a,b"),
    where("process.args", "a"),
    where("container.labels.com.example.team", "shop*"),
    where("container.labels.com.example", "shop"),
    where("container.labels.other", "shop"),
    where("container.security_context.privileged", "true"),
    where("destination.ip", "2001:db8::2"),
    where("tocsin.process.ancestors.name", "nginx,init"),
    where("process.start", "2026-03-01T09:30:00.000501Z"),
    where("@timestamp", "2026-03-01T09:30:00.123457Z"),
    where("user.name", "root"),
    where("process.pid"),
    Query(where={"process.pid": "4711", "destination.port": "444"}),
]


@pytest.mark.parametrize("query", MATCHING, ids=str)
def test_query_that_matches(kept: Store, query: Query) -> None:
    mark = unique()
    written(kept, rich(mark))
    query = dataclasses.replace(query, container=mark)
    assert ids(kept.search(query)) == [mark]
    assert kept.count(query) == 1


@pytest.mark.parametrize("query", NOT_MATCHING, ids=str)
def test_query_that_does_not_match(kept: Store, query: Query) -> None:
    mark = unique()
    written(kept, rich(mark))
    query = dataclasses.replace(query, container=mark)
    assert kept.search(query) == Page([], None)
    assert kept.count(query) == 0


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("{name}", True),
        ("{name:.5}", False),
        ("{upper}", False),
        ("{id}", True),
        ("{id:.12}", True),
        ("{id:.4}", True),
        ("{id:.3}", False),
        ("*", False),
    ],
)
def test_container_is_a_name_or_the_start_of_an_id(kept: Store, asked: str, found: bool) -> None:
    container_id, name, event_id = unique() * 2, "web-" + unique(), unique()
    written(kept, document("", event_id, container={"id": container_id, "name": name}))
    asked = asked.format(id=container_id, name=name, upper=name.upper())
    query = Query(container=asked, where={"event.id": event_id})
    assert bool(kept.search(query).documents) is found


ILLEGAL = {
    "an unknown field": where("process.nme", "x"),
    "an object": where("process", "x"),
    "a whole map": where("container.labels", "x"),
    "free text": where("message", "x"),
    "no number": where("process.pid", "one"),
    "a number beyond 64 bits": where("process.pid", str(2**63)),
    "no address": where("destination.ip", "10.0.0.0/8"),
    "no boolean": where("container.security_context.privileged", "yes"),
    "no date": where("process.start", "yesterday"),
    "an empty text": Query(text=""),
    "an endless text": Query(text="x" * 2000),
    "no limit": Query(limit=0),
    "too much": Query(limit=10_001),
    "a made-up cursor": Query(after="x"),
    "another made-up cursor": Query(after="W10="),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_query_is_refused(kept: Store, name: str) -> None:
    with pytest.raises(UsageError):
        kept.search(ILLEGAL[name])


_names = st.sampled_from(["sh", "SH", "curl", "a%", "a_", "*", "\u00e9"])
_few = st.integers(0, 3)
_processes = st.builds(Process, name=_names, pid=_few, args=st.lists(_names, max_size=3), command_line=_names)
_queries = st.builds(
    Query,
    datasets=st.lists(st.sampled_from(["tocsin.process", "tocsin.network"]), max_size=2),
    since=st.none() | _few.map(lambda us: START + timedelta(microseconds=us)),
    until=st.none() | _few.map(lambda us: START + timedelta(microseconds=us)),
    text=st.none() | _names,
    where=st.dictionaries(st.sampled_from(["process.name", "process.args"]), _names)
    | st.dictionaries(st.just("process.pid"), _few.map(str)),
    order=st.sampled_from(["asc", "desc"]),
    limit=st.integers(1, 5),
)


@lawful
@given(
    drawn=st.lists(st.tuples(_few, st.sampled_from(["tocsin.process", "tocsin.network"]), _processes), max_size=12),
    queries=st.lists(_queries, min_size=1, max_size=8),
)
def test_all_stores_answer_as_the_memory_does(kept: Store, drawn: list[Any], queries: list[Query]) -> None:
    mark, oracle = unique(), MemoryStore()
    documents = [
        document(mark, f"{mark}-{n}", at, dataset=dataset, process=process)
        for n, (at, dataset, process) in enumerate(drawn)
    ]
    oracle.write(documents)
    written(kept, *documents)
    for query in (dataclasses.replace(query, container=mark) for query in queries):
        assert [ids(page) for page in pages(kept, query)] == [ids(page) for page in pages(oracle, query)]
        assert kept.count(query) == oracle.count(query)


def test_writers_at_the_same_time_create_each_document_once(kept: Store) -> None:
    mark = unique()
    documents = [document(mark, f"{mark}-{n}", n) for n in range(100)]

    def write(seed: int) -> Counter[Outcome]:
        mixed = random.Random(seed).sample(documents, len(documents))
        return Counter(
            answer.outcome for start in range(0, 100, 10) for answer in kept.write(mixed[start : start + 10])
        )

    with ThreadPoolExecutor(4) as pool:
        total = sum(pool.map(write, range(4)), Counter[Outcome]())
    kept.refresh()
    assert total == {Outcome.CREATED: 100, Outcome.EXISTS: 300}
    assert kept.count(Query(container=mark)) == 100


def test_status_tells_what_is_there(kept: Store) -> None:
    before = kept.status().documents
    written(kept, document(unique(), unique(), -1), document(unique(), unique(), 10**12))
    status = kept.status()
    assert status.reachable
    assert status.problem == ""
    assert status.documents == before + 2
    assert status.size_bytes > 0
    assert status.oldest is not None and status.oldest <= START - timedelta(microseconds=1)
    assert status.newest is not None and status.newest >= START + timedelta(seconds=10**6)


def alert(mark: str, group: str, count: int, at_us: int) -> bytes:
    seen = START + timedelta(microseconds=at_us)
    detail = AlertDetail(
        group=f"{mark}-{group}", key=[], severity="high", count=count, events=[], first_seen=START, last_seen=seen
    )
    event_id = f"{mark}-{group}" if count == 1 else f"{mark}-{group}-{count}"
    return document(mark, event_id, at_us, dataset="tocsin.alert", kind="alert", tocsin=Tocsin(alert=detail))


def groups(kept: Store, mark: str, query: Query) -> Sequence[tuple[str, int]]:
    found = []
    while True:
        page = alerts(kept, query)
        assert len(page.groups) <= query.limit
        found += [(g.id.removeprefix(f"{mark}-"), g.count) for g in page.groups]
        if page.next is None:
            return found
        query = dataclasses.replace(query, after=page.next)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_alerts_are_folded_by_group(kept: Store, limit: int) -> None:
    mark = unique()
    story = [("a", 1, 0), ("b", 1, 1), ("a", 2, 2), ("c", 1, 3), ("a", 4, 4), ("b", 2, 5), ("d", 1, 6), ("a", 8, 7)]
    written(kept, document(mark, mark), *(alert(mark, *part) for part in story))
    asked = Query(container=mark, limit=limit)
    assert groups(kept, mark, asked) == [("a", 8), ("d", 1), ("b", 2), ("c", 1)]
    assert groups(kept, mark, dataclasses.replace(asked, order="asc")) == [("c", 1), ("b", 2), ("d", 1), ("a", 8)]
    since = dataclasses.replace(asked, since=START + timedelta(microseconds=5))
    assert groups(kept, mark, since) == [("a", 8), ("d", 1), ("b", 2)]
    until = dataclasses.replace(asked, until=START + timedelta(microseconds=4))
    assert groups(kept, mark, until) == [("c", 1), ("a", 2), ("b", 1)]


def test_closing_twice_is_harmless() -> None:
    for url in ("memory", "sqlite:/nonexistent/file.db"):
        opened = store.load(url)
        opened.close()
        opened.close()
