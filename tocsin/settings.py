"""What an operator can set: one TOML file, overridden by TOCSIN_<SECTION>_<KEY>. Owns reading and checking.

Every key is optional; `tocsin doctor --settings` prints them all with their values. Secrets are never values here, only
names of files (section `secrets`) or of environment variables (TOCSIN_SECRET_<NAME>).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tocsin.errors import ConfigError, Problem

DEFAULT_FILE = Path("/etc/tocsin/tocsin.toml")
PREFIX = "TOCSIN_"
SECRET_PREFIX = "TOCSIN_SECRET_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paths(_Section):
    state_dir: Path = Field(Path("/var/lib/tocsin"), description="Spool, ledger, evidence, snapshots, SQLite store.")
    run_dir: Path = Field(Path("/run/tocsin"), description="Unix sockets; made with mode 0700.")


class StoreSettings(_Section):
    url: str = Field(
        "sqlite", description="sqlite (below state_dir), sqlite:/path/file.db, or http(s)://host:9200 (Elasticsearch)."
    )
    namespace: str = Field("default", pattern=r"^[a-z0-9_]{1,40}$", description="Last part of the data stream's name.")
    api_key_secret: str | None = Field(None, description="Name of the secret that holds an Elasticsearch API key.")
    user: str | None = Field(None, description="Elasticsearch user, with password_secret.")
    password_secret: str | None = Field(None, description="Name of the secret that holds the password.")
    ca_file: Path | None = Field(None, description="Certificate authority of the cluster.")
    retain_days: float = Field(30, gt=0, description="SQLite: older events are removed.")
    retain_mib: int = Field(4096, ge=16, description="SQLite: beyond this size the oldest events are removed.")


class SensorSettings(_Section):
    scope: Literal["containers", "all"] = Field("containers", description="all: the host's own processes too.")
    docker: str = Field("unix:///var/run/docker.sock", description="Docker's API; the sensor only reads.")
    queue_events: int = Field(65_536, ge=1024, description="Events held while the forwarder is away.")
    ring_mib: int = Field(16, ge=1, le=1024, description="Kernel ring buffer; a power of two.")
    heartbeat_s: float = Field(10, gt=0, description="Seconds between heartbeat events.")
    strict: bool = Field(False, description="Refuse to start when a probe cannot be attached.")


class ForwarderSettings(_Section):
    spool_mib: int = Field(2048, ge=8, description="Beyond this the oldest segment is dropped, counted and reported.")
    retain_s: float = Field(1800, ge=0, description="Delivered segments are kept this long, for replay.")


class CorrelatorSettings(_Section):
    rules: list[Path] = Field(
        [Path("/etc/tocsin/rules")], description="Your rule directories, beside the shipped rules."
    )
    egress: Path | None = Field(None, description="Your egress allow-list; default: the shipped one.")
    group_span_s: float = Field(600, gt=0, description="Repeats of an alert within this span are folded into it.")


class PlaybookSettings(_Section):
    playbooks: list[Path] = Field(
        [Path("/etc/tocsin/playbooks")], description="Your playbook directories, beside the shipped library."
    )
    mode: Literal["disabled", "dry-run", "approve", "enforce"] = Field(
        "enforce", description="Ceiling: no playbook acts above it."
    )
    docker: str = Field("unix:///var/run/docker.sock", description="Docker's API; playbooks write to it.")
    protect_labels: list[str] = Field(["tocsin.protected=true"], description="Containers that are never touched.")
    evidence_mib: int = Field(1024, ge=1, description="Beyond this the oldest evidence is removed, and said so.")
    console_url: str | None = Field(None, description="Link base in messages.")


class Settings(_Section):
    paths: Paths = Paths()  # type: ignore[call-arg]
    store: StoreSettings = StoreSettings()  # type: ignore[call-arg]
    sensor: SensorSettings = SensorSettings()  # type: ignore[call-arg]
    forwarder: ForwarderSettings = ForwarderSettings()  # type: ignore[call-arg]
    correlator: CorrelatorSettings = CorrelatorSettings()  # type: ignore[call-arg]
    playbooks: PlaybookSettings = PlaybookSettings()  # type: ignore[call-arg]
    secrets: dict[str, Path] = Field({}, description="name -> file that holds the secret.")

    def socket(self, process: str) -> Path:
        return self.paths.run_dir / f"{process}.sock"

    def state(self, process: str) -> Path:
        """The process's own directory."""
        return self.paths.state_dir / process


def load(file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings of `file` (default: /etc/tocsin/tocsin.toml if it is there), then of the environment.

    Raises ConfigError naming every wrong key.
    """
    path = file or DEFAULT_FILE
    values: dict[str, Any] = {}
    if file is not None or path.exists():
        try:
            values = tomllib.loads(path.read_text())
        except OSError as e:
            raise ConfigError([Problem(str(path), 0, f"cannot be read: {e.strerror}")]) from e
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise ConfigError([Problem(str(path), 0, f"is not TOML: {e}")]) from e
    origin = _override(values, environ)
    try:
        return Settings.model_validate(values)
    except ValidationError as e:
        raise ConfigError([_problem(str(path), origin, dict(x)) for x in e.errors()]) from e


def _override(values: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Lays TOCSIN_SECTION_KEY over the file's values; returns which variable set which key."""
    origin: dict[tuple[str, str], str] = {}
    for section, info in Settings.model_fields.items():
        if not isinstance(info.default, _Section):
            continue
        for key, field_info in type(info.default).model_fields.items():
            variable = f"{PREFIX}{section}_{key}".upper()
            if variable in environ:
                text = environ[variable]
                is_list = isinstance(field_info.default, list)
                values.setdefault(section, {})[key] = [x for x in text.split(":") if x] if is_list else text
                origin[section, key] = variable
    return origin


def _problem(file: str, origin: dict[tuple[str, str], str], error: dict[str, Any]) -> Problem:
    place = tuple(str(x) for x in error["loc"])
    known = origin.get((place[0], place[1])) if len(place) > 1 else None
    text = "is not a setting" if error["type"] == "extra_forbidden" else str(error["msg"])
    return Problem(known or file, 0, f"[{place[0]}] {'.'.join(place[1:])}: {text}")


def secret(settings: Settings, name: str, environ: Mapping[str, str] = os.environ) -> str:
    """The secret's text, without its final newline. Raises ConfigError that names the place, never the value."""
    variable = SECRET_PREFIX + name.upper()
    if variable in environ:
        return environ[variable]
    path = settings.secrets.get(name)
    if path is None:
        raise ConfigError(
            [Problem("settings", 0, f'the secret {name!r} is not set: give [secrets] {name} = "/path" or {variable}')]
        )
    try:
        return path.read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not text"
        raise ConfigError([Problem(str(path), 0, f"the secret {name!r} cannot be read: {reason}")]) from e
