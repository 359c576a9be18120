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

OpenForwarder = Callable[..., Forwarder]
Serve = Callable[[str, Routes], contextlib.AbstractContextManager[Path]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenForwarder]:
    """Makes and starts a forwarder in tmp_path/"spool"; stops all at the end."""
    made: list[Forwarder] = []

    def make(sinks: Mapping[str, Sink], limits: Limits | None = None, directory: Path | None = None) -> Forwarder:
        forwarder = Forwarder(directory or tmp_path / "spool", sinks, limits)
        made.append(forwarder)
        forwarder.start()
        return forwarder

    yield make
    for forwarder in made:
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
