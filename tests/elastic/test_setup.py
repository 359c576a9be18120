"""Templates in a real cluster, and a cluster that stops. On a node of its own: these change what all would share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import elastic.setup
from ecs_mappings.event import Ecs, Event, EventMeta, encode
from ecs_mappings.template import field_paths
from elastic.setup import setup
from elastic.store import ElasticStore
from store import Options, Outcome, Query
from tocsin.errors import RetryLater

pytestmark = pytest.mark.elastic


def document(event_id: str) -> bytes:
    meta = EventMeta(id=event_id, category=["process"], type=["start"], action="exec", dataset="tocsin.process")
    return encode(Event(timestamp=datetime.now(UTC), ecs=Ecs(), event=meta))


@pytest.fixture
def kept(elastic_node: Any, options: Options) -> Iterator[ElasticStore]:
    store = ElasticStore(elastic_node.url, options)
    yield store
    store.close()


def mapped(store: ElasticStore, stream: str) -> list[dict[str, Any]]:
    """The mapped properties of each backing index."""
    answer = store.client.indices.get_mapping(index=stream)
    return [answer[index]["mappings"]["properties"] for index in sorted(answer)]


def test_setup_is_idempotent(kept: ElasticStore) -> None:
    kept.write([document("e")])
    again = setup(kept.client)
    assert not again.changed
    assert again.rolled_over == ()
    assert again.features == {"wildcard": False, "match_only_text": False, "lifecycle": False}
    assert kept.status().features == again.features


def test_data_stream_gets_the_contract(kept: ElasticStore, options: Options) -> None:
    stream = f"logs-tocsin.process-{options.namespace}"
    kept.write([document("e"), document("f")[:-1] + b',"evil":{"' + b"x" * 100 + b'":1}}'])
    (properties,) = mapped(kept, stream)
    assert set(properties) == {path.split(".")[0] for path in field_paths()}
    assert properties["process"]["properties"]["command_line"]["type"] == "keyword"
    assert kept.client.indices.get_settings(index=stream, flat_settings=True) != {}


def test_new_field_reaches_streams_that_exist(
    kept: ElasticStore, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.write([document("e")])
    _add_field(monkeypatch, "added", {"type": "keyword"})
    assert setup(kept.client).changed
    (properties,) = mapped(kept, f"logs-tocsin.process-{options.namespace}")
    assert properties["added"] == {"type": "keyword"}
    monkeypatch.undo()
    assert setup(kept.client).changed


def test_changed_type_begins_a_new_backing_index(
    kept: ElasticStore, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = f"logs-tocsin.process-{options.namespace}"
    kept.write([document("e")])
    _add_field(monkeypatch, "tags", {"type": "long"})
    assert stream in setup(kept.client).rolled_over
    assert [p["tags"]["type"] for p in mapped(kept, stream)] == ["keyword", "long"]
    monkeypatch.undo()
    setup(kept.client)
    assert kept.write([document("e")])[0].outcome is Outcome.EXISTS


def _add_field(monkeypatch: pytest.MonkeyPatch, name: str, mapping: dict[str, Any]) -> None:
    body = elastic.setup.mappings(frozenset())
    body["properties"][name] = mapping
    monkeypatch.setattr(elastic.setup, "mappings", lambda supported: body)


def test_full_cluster_gets_ecs_own_types(kept: ElasticStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """This node has no such types, so only what would be sent is looked at."""
    bodies = elastic.setup._bodies({"wildcard": True, "match_only_text": True, "lifecycle": True})
    assert bodies["mappings"]["properties"]["process"]["properties"]["command_line"] == {"type": "wildcard"}
    assert bodies["mappings"]["properties"]["message"] == {"type": "match_only_text"}
    assert bodies["template"] == {"lifecycle": {"enabled": True}}


def test_cluster_that_stops_and_comes_back(elastic_node: Any, kept: ElasticStore) -> None:
    taken: list[str] = []
    for number in range(10):
        taken.append(f"e-{number}")
        kept.write([document(taken[-1])])
    elastic_node.stop()
    with pytest.raises(RetryLater):
        kept.write([document("while-away")])
    assert not kept.status().reachable
    elastic_node.start()
    answers = kept.write([document(event_id) for event_id in [*taken, "while-away"]])
    assert [a.outcome for a in answers] == [Outcome.EXISTS] * 10 + [Outcome.CREATED]
    kept.refresh()
    assert kept.count(Query()) == 11
