"""Finds the store a URL names. The file name is the registry: `memory` is opened by store/memory.py."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from store.protocol import Options, Store
from tocsin.errors import UsageError

_NOT_STORES = {"alerts", "document", "housekeeping", "protocol", "query", "registry", "sqlite_file", "sqlite_query"}


def names() -> list[str]:
    """Stems of the stores in this package, sorted."""
    here = [str(Path(__file__).parent)]
    return sorted(m.name for m in pkgutil.iter_modules(here) if m.name not in _NOT_STORES)


def load(url: str, options: Options | None = None, elsewhere: Mapping[str, str] | None = None) -> Store:
    """Opens the store of `url`: `sqlite`, `sqlite:/path/file.db`, `memory`, or a scheme of `elsewhere`.

    `elsewhere` names the modules of stores that live in other packages, as {"https": "elastic.store"}: the program
    passes it, because this package may not import those that build on it. A module is imported only when asked for,
    and opens with `open_store(url, options)`. Raises UsageError for an unknown store.
    """
    scheme = url.partition(":")[0]
    modules = {name: f"store.{name}" for name in names()} | dict(elsewhere or {})
    if scheme not in modules:
        raise UsageError(f"there is no store {url!r}; known: {', '.join(sorted(modules))}")
    module = importlib.import_module(modules[scheme])
    return cast(Store, module.open_store(url, options or Options()))
