"""Fixtures of the forwarder's tests: spools, forwarders that are stopped at the end, real servers on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from forwarder.forwarder import Forwarder
from forwarder.limits import Limits
from forwarder.sinks import Sink
from tocsin.link import Routes, serving

Serve = Callable[[str, Routes], contextlib.AbstractContextManager[Path]]


class Opener:
    """Makes and starts forwarders, in tmp_path/"spool" unless told otherwise."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self.made: list[Forwarder] = []

    def __call__(
        self, sinks: Mapping[str, Sink], limits: Limits | None = None, directory: Path | None = None
    ) -> Forwarder:
        forwarder = Forwarder(directory or self._tmp_path / "spool", sinks, limits)
        self.made.append(forwarder)
        forwarder.start()
        return forwarder

    def last(self) -> Forwarder:
        return self.made[-1]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Stops all that it made at the end."""
    opener = Opener(tmp_path)
    yield opener
    for forwarder in opener.made:
        forwarder.stop(0)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Serves routes on tmp_path/"<name>.sock" while the block runs."""

    @contextlib.contextmanager
    def block(name: str, routes: Routes) -> Iterator[Path]:
        path = tmp_path / f"{name}.sock"
        ready, done = threading.Event(), threading.Event()

        async def run() -> None:
            async with serving(path, routes):
                ready.set()
                await asyncio.to_thread(done.wait)

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        assert ready.wait(10)
        try:
            yield path
        finally:
            done.set()
            thread.join()

    return block


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tocsin-test", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
