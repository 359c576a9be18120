"""A Tocsin of its own for each test: settings that point into a temporary directory, and its command line."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ecs_mappings.event import decode, encode
from tocsin.cli import app
from tocsin.settings import Settings, load


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file; no TOCSIN_* variable of this host reaches the test."""
    for variable in [v for v in os.environ if v.startswith("TOCSIN_")]:
        monkeypatch.delenv(variable)
    file = tmp_path / "tocsin.toml"
    file.write_text(f'[paths]\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n')
    return file


@pytest.fixture
def settings(config: Path) -> Settings:
    return load(config, {})


class Ran:
    """What one call of `tocsin` did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of --json: one object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def tocsin(config: Path) -> Callable[..., Ran]:
    """The command line, in this process."""

    def call(*args: str) -> Ran:
        result = CliRunner().invoke(app, ["--config", str(config), *args], env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def tocsin_process(config: Path) -> Callable[..., Ran]:
    """The command line as a process of its own: for exit codes and signals as the shell sees them."""

    def call(*args: str, environ: dict[str, str] | None = None) -> Ran:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tocsin", "--config", str(config), *args],
            capture_output=True, text=True, timeout=20, env={**os.environ, **(environ or {})}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def event() -> Callable[..., bytes]:
    """Makes encoded events of now; `parts` are their other objects; `event` may complete the given one."""
    numbers = itertools.count(1)

    def make(dataset: str = "tocsin.process", action: str = "exec", **parts: Any) -> bytes:
        document = {
            "@timestamp": datetime.now(UTC).isoformat(),
            "ecs": {},
            "container": {"id": "ab" * 32, "name": "web"},
            **parts,
            "event": {
                "id": f"e{next(numbers)}", "category": ["process"], "type": ["start"], "action": action,
                "dataset": dataset, **parts.get("event", {}),
            },
        }  # fmt: skip
        return encode(decode(json.dumps(document).encode()))

    return make


@pytest.fixture
def written(settings: Settings) -> Iterator[Callable[..., None]]:
    """Puts documents into the store, as the forwarder does."""
    from tocsin.storage import open_store

    store = open_store(settings)

    def write(*documents: bytes) -> None:
        assert {w.outcome for w in store.write(documents)} == {"created"}
        store.refresh()

    yield write
    store.close()
