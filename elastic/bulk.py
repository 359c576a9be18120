"""Sends documents, create-only, and reads what became of each. Owns one round trip; retries belong to the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from elasticsearch import ApiError, Elasticsearch

from store.protocol import Outcome, Written
from tocsin.errors import RetryLater

MAX_REQUEST_BYTES = 8 * 1024 * 1024
"""Bytes of documents in one request; clusters take 100 MB unless a proxy before them takes less."""

_REFUSED = frozenset({400, 413})
"""Statuses that are about the document itself. All others are about the cluster and pass."""
_CLUSTER_IS_FULL = "validation_exception"
"""Type of an error of status 400 that is not: a new data stream would have more shards than the cluster allows."""

_FILTER = "items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"


class _Cause(msgspec.Struct):
    reason: str | None = None


class _Error(msgspec.Struct):
    type: str
    reason: str | None = None
    caused_by: _Cause | None = None

    def __str__(self) -> str:
        cause = self.caused_by.reason if self.caused_by else None
        return f"{self.type}: {self.reason}" + (f" ({cause})" if cause else "")


class _Result(msgspec.Struct):
    status: int
    error: _Error | None = None


class _Created(msgspec.Struct):
    create: _Result


class _Answer(msgspec.Struct):
    items: list[_Created]


@dataclass(frozen=True)
class Item:
    """One document on its way: its place in the batch, and where it goes."""

    place: int
    stream: str
    id: str
    document: bytes


@dataclass(frozen=True)
class Undecided:
    """The cluster could not take the item now."""

    item: Item
    status: int
    reason: str


def create(client: Elasticsearch, items: Sequence[Item]) -> tuple[dict[int, Written], list[Undecided]]:
    """Creates the items; returns what became of them by place, and those whose fate is open."""
    decided: dict[int, Written] = {}
    undecided: list[Undecided] = []
    for request in _requests(items):
        for item, status, reason in _send(client, request):
            if status == 201:
                decided[item.place] = Written(Outcome.CREATED)
            elif status == 409:
                decided[item.place] = Written(Outcome.EXISTS)
            elif status in _REFUSED and not reason.startswith(_CLUSTER_IS_FULL):
                decided[item.place] = Written(Outcome.REJECTED, reason)
            else:
                undecided.append(Undecided(item, status, reason))
    return decided, undecided


def _requests(items: Sequence[Item]) -> Iterator[list[Item]]:
    request: list[Item] = []
    size = 0
    for item in items:
        if request and size + len(item.document) > MAX_REQUEST_BYTES:
            yield request
            request, size = [], 0
        request.append(item)
        size += len(item.document)
    if request:
        yield request


def _send(client: Elasticsearch, items: list[Item]) -> Iterator[tuple[Item, int, str]]:
    """(item, status, reason) of each. A request that is too long is halved down to the document that is."""
    lines: list[bytes] = []
    for item in items:
        lines += (msgspec.json.encode({"create": {"_index": item.stream, "_id": item.id}}), item.document)
    try:
        # Without the template a plain index would come into being, with whatever mapping the first document suggests.
        answer = client.bulk(operations=cast(Any, lines), require_data_stream=True, filter_path=_FILTER)
    except ApiError as e:
        if e.status_code != 413:
            raise
        if len(items) == 1:
            yield items[0], 413, "the cluster, or a proxy before it, refuses a document of this length"
            return
        yield from _send(client, items[: len(items) // 2])
        yield from _send(client, items[len(items) // 2 :])
        return
    for item, result in zip(items, _results(answer.body, len(items)), strict=True):
        yield item, result.status, str(result.error or "")


def _results(body: object, expected: int) -> list[_Result]:
    """One result per document, or RetryLater: what does not answer like Elasticsearch has taken nothing."""
    try:
        items = msgspec.convert(body, _Answer).items
    except msgspec.ValidationError as e:
        raise RetryLater(f"the answer to a bulk request is not Elasticsearch's: {e}") from e
    if len(items) != expected:
        raise RetryLater(f"the answer to a bulk request has {len(items)} results for {expected} documents")
    return [item.create for item in items]
