"""The store on Elasticsearch: a data stream `logs-<dataset>-<namespace>` per dataset, documents create-only by id."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence

import msgspec
from elasticsearch import AuthorizationException, Elasticsearch
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from elastic.bulk import Item, Undecided, create
from elastic.client import connect, translated
from elastic.generations import Generations
from elastic.query import filters
from elastic.setup import installed_features, setup
from store.document import read
from store.protocol import Options, Outcome, Page, Query, Store, StoreStatus, Written
from store.query import Position, cursor, position
from tocsin.errors import Rejected, RetryLater, TocsinError, UsageError

_ATTEMPTS = 4
"""Quick ones, for items a busy cluster put off; longer waits are the forwarder's."""

_log = logging.getLogger(__name__)


def open_store(url: str, options: Options) -> Store:
    """`http://host:port` or `https://host:port`. Does not speak to the cluster yet."""
    return ElasticStore(url, options)


class _Busy(RetryLater):
    """Some items were put off; the others are decided."""


class ElasticStore:
    """Keeps the promises of `Store` on a cluster. An event.id is unique within its dataset."""

    def __init__(self, url: str, options: Options) -> None:
        if not re.fullmatch(r"[a-z0-9_]{1,40}", options.namespace):
            raise UsageError(f"{options.namespace!r} cannot be a namespace: 1 to 40 of a-z, 0-9 and _")
        self.url = url
        self._namespace = options.namespace
        self._client = connect(url, options)
        self._generations = Generations(self._client)
        self._write_lock = threading.Lock()
        self._prepared = False

    @property
    def client(self) -> Elasticsearch:
        return self._client

    def write(self, documents: Sequence[bytes]) -> list[Written]:
        decided: dict[int, Written] = {}
        items: list[Item] = []
        for place, document in enumerate(documents):
            try:
                meta = read(document).event
            except Rejected as e:
                decided[place] = Written(Outcome.REJECTED, str(e))
            else:
                items.append(Item(place, f"logs-{meta.dataset}-{self._namespace}", meta.id, document))
        with self._write_lock:
            try:
                decided |= self._create(items) if items else {}
            except TocsinError as e:
                self._generations.doubt()
                # Whatever is wrong with the request or the cluster, no document of this batch may be given up for it.
                raise (e if isinstance(e, RetryLater) else RetryLater(str(e))) from e
        return [decided[place] for place in range(len(documents))]

    def _create(self, items: list[Item]) -> dict[int, Written]:
        decided: dict[int, Written] = {}
        busy = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            retry=retry_if_exception_type(_Busy),
            reraise=True,
        )
        for attempt in busy:
            with attempt, translated(self.url):
                self._prepare()
                open_items = [item for item in items if item.place not in decided]
                decided |= self._repeats(open_items)
                done, undecided = create(self._client, [item for item in open_items if item.place not in decided])
                decided |= done
                if undecided:
                    self._put_off(undecided)
        return decided

    def _repeats(self, items: list[Item]) -> dict[int, Written]:
        """Items that an older backing index holds."""
        ids: dict[str, list[str]] = {}
        for item in items:
            ids.setdefault(item.stream, []).append(item.id)
        there = {stream: self._generations.repeats(stream, of_stream) for stream, of_stream in ids.items()}
        return {item.place: Written(Outcome.EXISTS) for item in items if item.id in there[item.stream]}

    def _put_off(self, undecided: list[Undecided]) -> None:
        first = undecided[0]
        # 404: the data stream's template is gone, for example with all else in a cluster that was made anew.
        self._prepared = self._prepared and all(x.status != 404 for x in undecided)
        self._generations.doubt()
        raise _Busy(f"{self.url} put off {len(undecided)} documents: {first.status} {first.reason}")

    def _prepare(self) -> None:
        if self._prepared:
            return
        try:
            setup(self._client)
        except AuthorizationException as e:
            _log.warning(
                "may not manage index templates (%s): relies on `tocsin elastic setup` run by one who may",
                e.message,
                extra={"event.action": "elastic_setup_refused"},
            )
        self._prepared = True

    @property
    def _index(self) -> str:
        return f"logs-tocsin.*-{self._namespace}"

    def search(self, query: Query) -> Page:
        """Pages by keyset (time and id), so a cursor outlives processes and needs no snapshot held in the cluster."""
        start = position(query)
        with translated(self.url):
            found = self._client.search(
                index=self._index,
                query=filters(query),
                sort=[{"@timestamp": query.order}, {"event.id": query.order}],
                search_after=[start.at, start.id] if start else None,
                size=min(query.limit + 1, 10_000),
                track_total_hits=False,
                allow_partial_search_results=False,
                ignore_unavailable=True,
            )
        hits = found["hits"]["hits"]
        page = hits[: query.limit]
        more = len(hits) > query.limit or len(hits) == 10_000
        return Page(
            [msgspec.json.encode(hit["_source"]) for hit in page],
            cursor(Position(*page[-1]["sort"])) if more else None,
        )

    def count(self, query: Query) -> int:
        with translated(self.url):
            return int(self._client.count(index=self._index, query=filters(query))["count"])

    def get(self, event_id: str) -> bytes | None:
        with translated(self.url):
            found = self._client.search(index=self._index, query={"ids": {"values": [event_id]}}, size=1)
        hits = found["hits"]["hits"]
        return msgspec.json.encode(hits[0]["_source"]) if hits else None

    def refresh(self) -> None:
        with translated(self.url):
            self._client.indices.refresh(index=self._index)

    def status(self) -> StoreStatus:
        try:
            with translated(self.url):
                return self._status()
        except TocsinError as e:
            return StoreStatus(kind="elastic", place=self.url, reachable=False, problem=str(e))

    def _status(self) -> StoreStatus:
        health = self._client.cluster.health()
        red = (
            f"the cluster is red: {health['unassigned_shards']} shards are missing" if health["status"] == "red" else ""
        )
        nodes = self._client.nodes.info(metric="http", filter_path="nodes.*.version")
        stats = self._client.indices.stats(index=self._index, metric="store")
        ends = [self.search(Query(order=order, limit=1)).events for order in ("asc", "desc")]
        return StoreStatus(
            kind="elastic",
            place=self.url,
            reachable=True,
            problem=red,
            documents=self.count(Query()),
            size_bytes=stats["_all"]["total"].get("store", {}).get("size_in_bytes", 0),
            oldest=ends[0][0].timestamp if ends[0] else None,
            newest=ends[1][0].timestamp if ends[1] else None,
            version="Elasticsearch " + ", ".join(sorted({node["version"] for node in nodes["nodes"].values()})),
            features=installed_features(self._client),
        )

    def close(self) -> None:
        self._client.close()
