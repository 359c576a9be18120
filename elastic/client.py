"""Builds the client: credentials, certificates, time limits. Turns its errors into ours."""

from __future__ import annotations

import contextlib
import ipaddress
import warnings
from collections.abc import Iterator
from urllib.parse import urlsplit

from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, Elasticsearch, ElasticsearchWarning, TransportError

from store.protocol import Options
from tocsin.errors import RetryLater, TocsinError, UsageError

TIMEOUT_S = 10.0
"""Of every call."""

BUSY = frozenset({429, 502, 503, 504})
"""The cluster is there and cannot now."""


def connect(url: str, options: Options) -> Elasticsearch:
    """A client that has not spoken yet. Raises UsageError for a URL or a choice of credentials that cannot work."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise UsageError("credentials do not belong in the store's URL: set store.api_key_secret or store.user")
    if not parts.hostname or not parts.port:
        raise UsageError(f"{url!r} must name host and port, as in http://127.0.0.1:9200")
    if options.api_key and options.user:
        raise UsageError("set store.api_key_secret or store.user, not both")
    # Advice to the cluster's operator, repeated with every answer.
    warnings.simplefilter("ignore", ElasticsearchWarning)
    return Elasticsearch(
        url,
        api_key=options.api_key,
        basic_auth=(options.user, options.password or "") if options.user else None,
        request_timeout=TIMEOUT_S,
        max_retries=0,
        retry_on_timeout=False,
        http_compress=not _is_loopback(parts.hostname),
        ca_certs=str(options.ca_file) if options.ca_file else DEFAULT,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """RetryLater when the cluster is away, busy, or does not let us in; TocsinError when it calls the request wrong.

    Missing rights are RetryLater too: they are mended at the cluster, and until then nothing may be given up.
    """
    try:
        yield
    except TransportError as e:
        raise RetryLater(f"{place} cannot be reached: {e.message}") from e
    except ApiError as e:
        problem = f"{place} answers {e.status_code}: {e.message}"
        if e.status_code in BUSY or e.status_code >= 500:
            raise RetryLater(problem) from e
        if e.status_code in (401, 403):
            raise RetryLater(f"{problem}; check the store's credentials and their rights") from e
        raise TocsinError(problem) from e
