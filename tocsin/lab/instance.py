"""A Tocsin of its own: `tocsin up` on private directories, beside any other that may run on the host."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from store import Store
from tocsin import link, privileges, running, settings, storage
from tocsin.errors import TocsinError
from tocsin.lab import runs

PR_SET_PDEATHSIG = 1
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
_libc = ctypes.CDLL(None)


class Instance:
    """Runs until `stop`, which is also the end of the `with` block. State and sockets live in a directory of its own.

    `sections` are settings as in the TOML file, {"store": {"url": ...}}. Of the environment's TOCSIN_* variables only
    `environ` reaches it, so that nothing of this host's Tocsin does. `playbooks`: file
    name -> text; each stands in for the shipped one of that file name. `keep` leaves the directory for a look.
    """

    def __init__(
        self,
        sections: Mapping[str, Mapping[str, Any]] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        playbooks: Mapping[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        self._keep = keep
        self.started_s = 0.0
        """How long the last start took."""
        self.directory = Path(tempfile.mkdtemp(prefix=f"{runs.DIRECTORY}{runs.new()}."))
        self._config = self.directory / "tocsin.toml"
        own = {"playbooks": [_written(self.directory / "playbooks", playbooks or {})]}
        given = dict(sections or {})
        given["playbooks"] = {**own, **given.get("playbooks", {})}
        given["paths"] = {**_paths(self.directory), **given.get("paths", {})}
        self._config.write_text(_toml(given))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(settings.PREFIX)}
        self._environ = {**kept, **(environ or {})}
        self.settings = settings.load(self._config, self._environ)
        privileges.let_in(self.directory, self.settings)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Instance:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            if not self._keep:
                shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Returns once all processes answer. TocsinError with the log's end if they do not."""
        begun = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tocsin", "up", "--config", str(self._config), "--log", "human"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, start_new_session=True,
                preexec_fn=_end_with_parent,
            )  # fmt: skip
        while (state := self.state()) is None or state.get("ready_s") is None:
            if self._process.poll() is not None:
                raise TocsinError(f"Tocsin did not start:\n{self.log_end()}")
            if time.monotonic() - begun > START_TIMEOUT_S:
                raise TocsinError(f"Tocsin was not ready within {START_TIMEOUT_S:g} s:\n{self.log_end()}")
            time.sleep(0.02)
        self.started_s = time.monotonic() - begun

    def stop(self) -> None:
        """In order, as Ctrl-C does; at the latest after STOP_TIMEOUT_S by SIGKILL."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def log_end(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def state(self) -> dict[str, Any] | None:
        """What the supervisor says about its processes; None when it does not run."""
        return running.read_state(self.settings.paths.run_dir)

    def pid(self, process: str) -> int:
        """Of one of its processes, once that runs."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            found = ((self.state() or {}).get("processes") or {}).get(process, {}).get("pid")
            if found:
                return int(found)
            time.sleep(0.01)
        raise TocsinError(f"{process} does not run:\n{self.log_end()}")

    def kill(self, process: str) -> int:
        """kill -9; the pid that died."""
        pid = self.pid(process)
        os.kill(pid, signal.SIGKILL)
        return pid

    def store(self) -> Store:
        """A reader of its own; close it."""
        return storage.open_store(self.settings)

    @contextlib.contextmanager
    def client(self, process: str, timeout_s: float = 10.0) -> Iterator[link.Client]:
        """Speaks to the process's socket, in the thread that asks, until the block ends."""
        with contextlib.closing(link.Client(self.settings.socket(process), timeout_s)) as client:
            yield client

    def settle(self, timeout_s: float) -> bool:
        """Waits until all that was seen by now is everywhere, with its answers; False after `timeout_s`.

        Three looks in a row must agree, because what one process has finished may just be on its way to another.
        """
        deadline = time.monotonic() + timeout_s
        calm, before = 0, self._ends()
        while calm < 3:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.3)
            calm = calm + 1 if self._has_passed(before) else 0
            before = self._ends()
        return True

    def _ends(self) -> dict[str, int]:
        """Topic -> the offset after its last record."""
        return {name: topic["next"] for name, topic in self.status("forwarder")["topics"].items()}

    def _has_passed(self, ends: Mapping[str, int]) -> bool:
        """Whether every sink has what lay before `ends`, and the playbooks have nothing under way."""
        sinks = self.status("forwarder")["sinks"].values()
        playbooks = self.status("playbooks")
        working = sum(playbooks["runs"].get(state, 0) for state in ("queued", "running", "waiting"))
        leaving = playbooks["outbox"].get("pending", 0)
        return working + leaving == 0 and all(lane["cursor"] >= ends[topic] for s in sinks for topic, lane in s.items())

    def stored(self) -> dict[str, int]:
        """Alert id -> time.time_ns() when the store had taken it; of the newest few thousand."""
        found: dict[str, int] = self.status("forwarder")["stored"]
        return found

    def status(self, process: str) -> dict[str, Any]:
        """The process's own words; waits through a restart."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with self.client(process) as client:
                    answer: dict[str, Any] = client.get("/status").decoded()
                    return answer
            except TocsinError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _end_with_parent() -> None:
    """Between fork and exec: SIGTERM for the new process when ours dies, in whatever way."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _written(directory: Path, files: Mapping[str, str]) -> Path:
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def _paths(directory: Path) -> dict[str, str]:
    return {"state_dir": str(directory / "state"), "run_dir": str(directory / "run")}


def _toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML of flat sections: a JSON text, number, boolean or list of texts is the same in TOML."""
    lines: list[str] = []
    for name, section in sections.items():
        lines.append(f"[{name}]")
        lines += (f"{key} = {_value(value)}" for key, value in section.items())
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Path):
        return json.dumps(str(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)
