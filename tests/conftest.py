"""What tests of several packages need: a real Elasticsearch node, and events of every legal shape."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from ecs_mappings.event import Event

# A shell starts background jobs with SIGINT ignored, and every program below would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_DEPLOY = Path(__file__).parents[1] / "deploy" / "elasticsearch"


class ElasticNode:
    """A real node of the test's own, which it may stop and start again with the same data."""

    def __init__(self, home: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._home = home
        self._port = port

    def start(self) -> None:
        cache = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
        jars = os.environ.get("TOCSIN_ELASTIC_JARS", str(cache / "tocsin" / "elasticsearch"))
        environ = {**os.environ, "TOCSIN_ELASTIC_JARS": jars}
        subprocess.run([_DEPLOY / "start", self._home, str(self._port)], check=True, env=environ)

    def stop(self) -> None:
        subprocess.run([_DEPLOY / "stop", self._home], check=True)


@contextlib.contextmanager
def _new_node() -> Iterator[ElasticNode]:
    # Not below pytest's directory: the node's user cannot enter that.
    home = Path(tempfile.mkdtemp(prefix="tocsin-elastic-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        node = ElasticNode(home, free.getsockname()[1])
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def elastic_url() -> Iterator[str]:
    """A node at TOCSIN_TEST_ELASTIC, or one of this run's own. Each test takes a namespace of its own on it."""
    if url := os.environ.get("TOCSIN_TEST_ELASTIC"):
        yield url
        return
    with _new_node() as node:
        yield node.url


@pytest.fixture(scope="module")
def elastic_node() -> Iterator[ElasticNode]:
    """For tests that stop the node or change the cluster's templates."""
    with _new_node() as node:
        yield node


@pytest.fixture(scope="session")
def any_event() -> st.SearchStrategy[Event]:
    """Events with any of the contract's fields, made from its types: a new field is covered at once."""
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    times = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
    ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
    leaves: dict[type, st.SearchStrategy[Any]] = {
        msgspec.inspect.StrType: texts,
        msgspec.inspect.IntType: st.integers(-(2**63), 2**63 - 1),
        msgspec.inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False, width=32),
        msgspec.inspect.BoolType: st.booleans(),
        msgspec.inspect.DateTimeType: times,
    }

    def values(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
        match info:
            case msgspec.inspect.Metadata(extra={"es": "ip"}):
                return ips
            case msgspec.inspect.Metadata(type=inner):
                return values(inner)
            case msgspec.inspect.ListType(item_type=item):
                return st.lists(values(item), max_size=3)
            case msgspec.inspect.DictType():
                return st.dictionaries(st.text("abc.-_/", min_size=1, max_size=8), texts, max_size=3)
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                required = {f.name: values(f.type) for f in fields if f.required}
                optional = {f.name: values(f.type) for f in fields if not f.required}
                if "dataset" in required:
                    required |= {"id": st.uuids().map(str), "dataset": st.just("tocsin.process")}
                return st.fixed_dictionaries(required, optional=optional).map(lambda given: cls(**given))
        return leaves[type(info)]

    events: st.SearchStrategy[Event] = values(msgspec.inspect.type_info(Event))
    return events
