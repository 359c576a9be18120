"""Prepares a cluster for our data streams: templates from the contract. Idempotent; touches only what is ours."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elasticsearch import ApiError, BadRequestError, Elasticsearch, NotFoundError

from ecs_mappings.template import OPTIONAL_TYPES, mappings, settings

TEMPLATE = "logs-tocsin"
MAPPINGS = "tocsin@mappings"
SETTINGS = "tocsin@settings"
CUSTOM = "tocsin@custom"
"""Yours: an optional component template that has the last word, for example about retention."""

STREAMS = "logs-tocsin.*-*"
_PRIORITY = 500
"""Above the 100 of Elasticsearch's own template for logs-*-*."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    changed: bool
    """False when the cluster had exactly these templates already."""
    features: Mapping[str, bool]
    """Which of the optional field types, and `lifecycle`, the cluster offers."""
    rolled_over: tuple[str, ...] = ()
    """Data streams that started a new backing index because the old one could not take the new mappings."""


def setup(client: Elasticsearch) -> Setup:
    """Brings the templates, and the mappings of data streams that exist, up to date.

    Raises what the client raises; run again after any failure.
    """
    features = _features(client)
    bodies = _bodies(features)
    digest = hashlib.sha256(json.dumps(bodies, sort_keys=True).encode()).hexdigest()
    if _installed(client).get("digest") == digest:
        return Setup(False, features)
    missing = sorted(name for name, there in features.items() if not there)
    if missing:
        _log.info(
            "this cluster has no %s: using the nearest that it has",
            ", ".join(missing),
            extra={"event.action": "elastic_fallback"},
        )
    client.cluster.put_component_template(name=MAPPINGS, template={"mappings": bodies["mappings"]})
    client.cluster.put_component_template(name=SETTINGS, template={"settings": bodies["settings"]})
    client.indices.put_index_template(
        name=TEMPLATE,
        index_patterns=[STREAMS],
        data_stream={},
        priority=_PRIORITY,
        composed_of=[MAPPINGS, SETTINGS, CUSTOM],
        ignore_missing_component_templates=[CUSTOM],
        template=bodies["template"],
        meta={"description": "Tocsin's events", "digest": digest, "features": features},
    )
    return Setup(True, features, _update_streams(client, bodies["mappings"]))


def installed_features(client: Elasticsearch) -> Mapping[str, bool]:
    """What the templates in the cluster were made for; empty before the first setup."""
    features: Mapping[str, bool] = _installed(client).get("features", {})
    return features


def _bodies(features: Mapping[str, bool]) -> dict[str, Any]:
    return {
        "mappings": mappings({name for name in OPTIONAL_TYPES if features[name]}),
        "settings": settings(),
        "template": {"lifecycle": {"enabled": True}} if features["lifecycle"] else {},
    }


def _features(client: Elasticsearch) -> dict[str, bool]:
    features = {name: _has_type(client, name) for name in sorted(OPTIONAL_TYPES)}
    return features | {"lifecycle": _has_lifecycle(client)}


def _has_type(client: Elasticsearch, name: str) -> bool:
    probe = {"mappings": {"properties": {"probe": {"type": name}}}}
    try:
        client.indices.simulate_template(index_patterns=["tocsin-probe-*"], template=probe)
    except BadRequestError:
        return False
    return True


def _has_lifecycle(client: Elasticsearch) -> bool:
    """Whether the data stream lifecycle is served: a node without it takes its template and never acts on it."""
    try:
        client.indices.get_data_lifecycle(name=STREAMS)
    except NotFoundError:
        return True  # served, and there is no data stream yet
    except ApiError as e:
        if e.status_code in (400, 405):
            return False
        raise
    return True


def _installed(client: Elasticsearch) -> Mapping[str, Any]:
    try:
        found = client.indices.get_index_template(name=TEMPLATE)
    except NotFoundError:
        return {}
    meta: Mapping[str, Any] = found["index_templates"][0]["index_template"].get("_meta", {})
    return meta


def _update_streams(client: Elasticsearch, wanted: dict[str, Any]) -> tuple[str, ...]:
    """Adds new fields to the data streams that exist; one that cannot take them begins a new backing index."""
    rolled_over = []
    for stream in client.indices.resolve_index(name=STREAMS)["data_streams"]:
        try:
            client.indices.put_mapping(index=stream["name"], properties=wanted["properties"], write_index_only=True)
        except BadRequestError:
            client.indices.rollover(alias=stream["name"])
            rolled_over.append(stream["name"])
    return tuple(rolled_over)
