"""Throw-away containers for the demo, the benchmarks and the tests. Owns only what carries its label, and removes that.

A run that was killed leaves its things behind; the next one finds them by the label, sees that their process is gone,
and removes them. What has no such label, or whose process lives, is never touched.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tocsin.errors import TocsinError
from tocsin.lab import images, outside, runs
from tocsin.lab.client import docker, labelled
from tocsin.lab.outside import Outside
from tocsin.lab.terminal import Terminal

__all__ = ["Container", "Lab", "Outside", "Terminal"]

_serial = itertools.count()


@dataclass(frozen=True)
class Container:
    id: str
    """64 hexadecimal digits."""
    name: str

    def run(self, *command: str, timeout_s: float = 60.0) -> str:
        """`docker exec`, without a terminal: what it printed. TocsinError when the command fails."""
        return docker("exec", self.id, *command, timeout_s=timeout_s)

    def start(self, *command: str) -> None:
        """`docker exec --detach`: does not wait for the command."""
        docker("exec", "--detach", self.id, *command)

    def terminal(self, *command: str) -> Terminal:
        """`docker exec -it` through a real pseudo-terminal."""
        return Terminal(self.id, *command)

    def status(self) -> str:
        """Docker's word: running, paused, exited, ..."""
        return docker("inspect", "--format", "{{.State.Status}}", self.id)

    def wait_for(self, status: str, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while (now := self.status()) != status:
            if time.monotonic() > deadline:
                raise TocsinError(f"the container {self.name} is {now} after {timeout_s:g} s, not {status}")
            time.sleep(0.05)

    def networks(self) -> set[str]:
        listed = docker("inspect", "--format", "{{range $k, $_ := .NetworkSettings.Networks}}{{$k}} {{end}}", self.id)
        return set(listed.split())

    def address(self) -> str:
        """Its IPv4 address on its (only) network."""
        return docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.id)

    def remove(self) -> None:
        _remove_container(self.id)


class Lab:
    """One run's containers, networks, images and outside. Use it as a context manager; not safe between threads.

    Entering one removes what dead runs left behind. `keep` leaves its things for a look, until the next one is entered.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self.run = runs.new(next(_serial))
        self._images: dict[str, str] = {}
        self._network = ""
        self._outsides: list[Outside] = []

    def __enter__(self) -> Lab:
        for run in set(_owned()):
            if runs.is_dead(run):
                _sweep(run)
        for path in Path(tempfile.gettempdir()).glob(f"{runs.DIRECTORY}*.*"):
            if runs.is_dead(path.name.removeprefix(runs.DIRECTORY).partition(".")[0]):
                shutil.rmtree(path, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._outsides:
            listener.close()
        if not self._keep:
            _sweep(self.run)

    @property
    def image(self) -> str:
        """Busybox with all its applets."""
        return self.build("busybox")

    @property
    def network(self) -> str:
        """A bridge network of this run, where containers find each other by name."""
        if not self._network:
            name = f"tocsin-lab-{self.run}"
            docker("network", "create", "--label", f"{runs.LABEL}={self.run}", name)
            self._network = name
        return self._network

    def build(
        self, name: str, *, programs: tuple[str, ...] = (), files: Mapping[str, bytes] | None = None, tag: str = ""
    ) -> str:
        """The image tocsin-lab/NAME: busybox, `programs` of this host with their libraries, and `files`. Built once."""
        if name not in self._images:
            image = f"tocsin-lab/{name}:{tag or self.run}"
            change = f"LABEL {runs.LABEL}={self.run}"
            docker("import", "--change", change, "-", image, stdin=images.busybox(files, programs))
            self._images[name] = image
        return self._images[name]

    def container(
        self, name: str, *command: str, image: str = "", network: str = "", labels: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
    ) -> Container:  # fmt: skip
        """Starts one, named tocsin-lab-NAME-<run>, found as NAME on the run's network. `options` go to `docker run`.

        Without a command it sleeps.
        """
        marks = {runs.LABEL: self.run, **(labels or {})}
        full_name = f"tocsin-lab-{name}-{self.run}"
        on = network or self.network
        alias = ("--network-alias", name) if on == self._network else ()
        found = docker(
            "run", "--detach", "--name", full_name, "--hostname", name, "--network", on, *alias,
            *(word for key, value in marks.items() for word in ("--label", f"{key}={value}")),
            *options, image or self.image, *(command or ("sleep", "1000000")),
        )  # fmt: skip
        return Container(found, full_name)

    def outside(self, port: int = outside.PORT) -> Outside:
        """Listens at 203.0.113.10:port, on a dummy interface of this run."""
        listener = Outside(self.run, port)
        self._outsides.append(listener)
        return listener


def _owned() -> Iterator[str]:
    """The run of everything that any lab made on this host."""
    for kind in ("container", "network", "image"):
        yield from labelled(kind, runs.LABEL).values()
    yield from outside.interfaces().values()


def _sweep(run: str) -> None:
    """Removes all of one run; what goes away meanwhile is no error."""
    for container, owner in labelled("container", runs.LABEL).items():
        if owner == run:
            _remove_container(container)
    for kind in ("network", "image"):
        for thing, owner in labelled(kind, runs.LABEL).items():
            if owner == run:
                with contextlib.suppress(TocsinError):
                    docker(kind, "rm", thing)
    outside.remove_interfaces(run)


def _remove_container(container: str) -> None:
    with contextlib.suppress(TocsinError):  # a paused one would not die
        docker("unpause", container)
    with contextlib.suppress(TocsinError):
        docker("rm", "--force", "--volumes", container)
