"""A namespace of its own for each test."""

from __future__ import annotations

import uuid

import pytest

from store import Options


@pytest.fixture
def options() -> Options:
    return Options(namespace=f"t{uuid.uuid4().hex[:12]}")
