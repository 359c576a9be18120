"""What any store takes: one legal event, encoded. All stores refuse the same documents for the same reasons."""

from __future__ import annotations

import re

import msgspec

from ecs_mappings.event import MAX_DOCUMENT_BYTES, Event, decode
from tocsin.errors import Rejected

_DATASET = re.compile(r"tocsin\.[a-z][a-z0-9_]{0,39}")
"""A dataset becomes part of an index name."""
_FIRST_YEAR, _LAST_YEAR = 1970, 2261
"""What fits in 64 bits of nanoseconds."""
_MAX_LABEL_KEY = 1024


def read(document: bytes) -> Event:
    """The event of a document. Raises Rejected with the reason when no store will ever take it."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise Rejected(f"the document has {len(document)} bytes, {MAX_DOCUMENT_BYTES} are allowed")
    try:
        event = decode(document)
        document.decode()
    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
        raise Rejected(f"not a legal event: {e}") from e
    _check(event, document)
    return event


def _check(event: Event, document: bytes) -> None:
    if b"\n" in document:
        raise Rejected("the document has more than one line")
    if not _DATASET.fullmatch(event.event.dataset):
        raise Rejected(f"event.dataset {event.event.dataset[:80]!r} is not tocsin.NAME")
    if not _FIRST_YEAR <= event.timestamp.year <= _LAST_YEAR:
        raise Rejected(f"@timestamp {event.timestamp.isoformat()} is not between {_FIRST_YEAR} and {_LAST_YEAR}")
    if event.container and event.container.labels:
        if any(len(key) > _MAX_LABEL_KEY or "\0" in key for key in event.container.labels):
            raise Rejected(f"a key of container.labels is over {_MAX_LABEL_KEY} characters or holds a NUL")
