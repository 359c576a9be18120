"""Stores are found by the name of their file."""

from __future__ import annotations

import importlib

import pytest

import store
from tocsin.errors import UsageError


def test_every_name_is_a_store() -> None:
    assert store.names() == ["memory", "sqlite"]
    for name in store.names():
        assert callable(importlib.import_module(f"store.{name}").open_store)


def test_unknown_store_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"no store 'redis:x'; known: https, memory, sqlite"):
        store.load("redis:x", elsewhere={"https": "elastic.store"})


@pytest.mark.parametrize("url", ["", "protocol", "registry", "http://127.0.0.1:9200", "../memory"])
def test_other_modules_are_no_stores(url: str) -> None:
    with pytest.raises(UsageError):
        store.load(url)
