"""The store that the settings name, opened. Owns how settings and secrets become a store's options."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from store import Options, Store, load
from tocsin.errors import ConfigError, Problem, TocsinError, UsageError
from tocsin.settings import Settings, secret

ELSEWHERE = {"http": "elastic.store", "https": "elastic.store"}
"""Stores outside of the package `store`, which may not know those that build on it."""


def options(settings: Settings) -> Options:
    """What the store is opened with. ConfigError names each secret that cannot be read."""
    chosen = settings.store
    problems: list[Problem] = []

    def read(name: str | None) -> str | None:
        try:
            return None if name is None else secret(settings, name)
        except ConfigError as e:
            problems.extend(e.problems)
            return None

    if chosen.ca_file is not None and not chosen.ca_file.is_file():
        problems.append(
            Problem(str(chosen.ca_file), 0, "is no file; [store] ca_file must name the cluster's authority")
        )
    found = Options(
        directory=settings.state("store"),
        namespace=chosen.namespace,
        retain_s=chosen.retain_days * 86_400,
        retain_bytes=chosen.retain_mib << 20,
        api_key=read(chosen.api_key_secret),
        user=chosen.user,
        password=read(chosen.password_secret),
        ca_file=chosen.ca_file,
    )
    if problems:
        raise ConfigError(problems)
    return found


def open_store(settings: Settings) -> Store:
    """Opens the store. ConfigError for a wrong secret or URL; a store that is only away opens all the same."""
    found = options(settings)
    try:
        return load(settings.store.url, found, ELSEWHERE)
    except UsageError as e:
        raise ConfigError([Problem("[store] url", 0, str(e))]) from e


def is_remote(settings: Settings) -> bool:
    """Whether the store may be away for a while, and come back."""
    return settings.store.url.startswith(("http:", "https:"))


def check_place(settings: Settings) -> None:
    """ConfigError when the store's file could never be written or is none of ours. Makes nothing."""
    if is_remote(settings):
        return
    store = open_store(settings)
    try:
        status = store.status()
    finally:
        store.close()
    if not status.reachable:
        raise ConfigError([Problem(status.place, 0, f"cannot be used as the store: {status.problem}")])
    path = Path(status.place)
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    if nearest != path and not nearest.is_dir():
        raise ConfigError([Problem(status.place, 0, f"cannot be written: {nearest} is no directory")])
    if not os.access(nearest, os.W_OK):
        raise ConfigError([Problem(status.place, 0, f"cannot be written: no right to write {nearest}")])


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """The store for one command. TocsinError with its problem when it cannot answer."""
    store = open_store(settings)
    try:
        status = store.status()
        if not status.reachable:
            raise TocsinError(f"{status.place}: the store does not answer: {status.problem}; see `tocsin status`")
        yield store
    finally:
        store.close()
