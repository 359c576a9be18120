"""One store of each kind for all contract tests. Each test tells its documents by a container name of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import store
from store import Options, Store

KINDS = ["memory", "sqlite", pytest.param("elastic", marks=pytest.mark.elastic)]


@pytest.fixture(scope="module", params=KINDS)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory: Path = tmp_path_factory.mktemp("store")
    url = request.getfixturevalue("elastic_url") if request.param == "elastic" else request.param
    # No retention: the documents of these tests are of any age.
    options = Options(directory=directory, namespace=f"t{uuid.uuid4().hex[:12]}", retain_s=1e10)
    opened = store.load(url, options, {"http": "elastic.store", "https": "elastic.store"})
    yield opened
    opened.close()
