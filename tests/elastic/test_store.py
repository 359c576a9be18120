"""What is Elasticsearch's own about the store, on a real node."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecs_mappings.event import Ecs, Event, EventMeta, encode
from elastic.store import ElasticStore
from store import Options, Query
from tocsin.errors import RetryLater, UsageError

pytestmark = pytest.mark.elastic


def batch(count: int) -> list[bytes]:
    meta = {"category": ["process"], "type": ["start"], "action": "exec", "dataset": "tocsin.process"}
    events = [EventMeta(id=f"e-{number}", **meta) for number in range(count)]
    return [encode(Event(timestamp=datetime.now(UTC), ecs=Ecs(), event=event)) for event in events]


@pytest.fixture
def kept(elastic_url: str, options: Options) -> Iterator[ElasticStore]:
    store = ElasticStore(elastic_url, options)
    yield store
    store.close()


def test_cluster_that_is_away(options: Options) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    store = ElasticStore(url, options)
    calls: list[Any] = [lambda: store.write(batch(1)), lambda: store.search(Query()), lambda: store.get("x")]
    for call in calls:
        with pytest.raises(RetryLater, match=f"{url} cannot be reached"):
            call()
    status = store.status()
    store.close()
    assert not status.reachable
    assert "cannot be reached" in status.problem


def test_namespaces_do_not_see_each_other(kept: ElasticStore, elastic_url: str, options: Options) -> None:
    other = ElasticStore(elastic_url, Options(namespace=f"x_{options.namespace}"))
    other.write(batch(2))
    other.refresh()
    kept.write(batch(1))
    kept.refresh()
    assert (kept.count(Query()), other.count(Query())) == (1, 2)
    other.close()


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_every_legal_event_is_taken(
    kept: ElasticStore, any_event: st.SearchStrategy[Event], data: st.DataObject
) -> None:
    documents = [encode(event) for event in data.draw(st.lists(any_event, min_size=1, max_size=5))]
    assert {a.reason for a in kept.write(documents)} == {""}


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("http://me:secret@127.0.0.1:9200", Options(), "credentials do not belong"),
        ("http://127.0.0.1", Options(), "host and port"),
        ("https:///x", Options(), "host and port"),
        ("http://127.0.0.1:9200", Options(api_key="a", user="b"), "not both"),
        ("http://127.0.0.1:9200", Options(namespace="a-b"), "namespace"),
        ("http://127.0.0.1:9200", Options(namespace="*"), "namespace"),
    ],
)
def test_settings_that_cannot_work_are_refused(url: str, options: Options, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ElasticStore(url, options)
