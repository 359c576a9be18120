"""What an operator can set: one TOML file, overridden by TOCSIN_<SECTION>_<KEY>. Owns reading and checking.

Every key is optional; `tocsin doctor --settings` prints them all with their values. Secrets are never values here, only
names of files (section `secrets`) or of environment variables (TOCSIN_SECRET_<NAME>).
"""

from __future__ import annotations

import os
import re
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
    run_dir: Path = Field(Path("/run/tocsin"), description="Unix sockets; closed to all but root and the user.")
    user: str = Field(
        "tocsin",
        pattern=r"^[a-z_][a-z0-9_-]{0,31}$",
        description="System user that all processes but the sensor become when root starts them.",
    )


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
    text = ""
    values: dict[str, Any] = {}
    if file is not None or path.exists():
        text = _read(path)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as e:
            line = re.search(r"at line ([0-9]+)", str(e))
            raise ConfigError([Problem(str(path), int(line[1]) if line else 0, f"is not TOML: {e}")]) from e
    origin = _override(values, environ)
    try:
        return Settings.model_validate(values)
    except ValidationError as e:
        raise ConfigError([_problem(str(path), text, origin, dict(x)) for x in e.errors()]) from e


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not text"
        raise ConfigError([Problem(str(path), 0, f"cannot be read: {reason}")]) from e


def _override(values: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Lays TOCSIN_<SECTION>_<KEY> over the file's values; returns which variable set which key.

    Every variable that begins like a section's counts, so a misspelt one is refused like a misspelt key of the file.
    """
    origin: dict[tuple[str, ...], str] = {}
    for variable, text in sorted(environ.items()):
        section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
        info = Settings.model_fields.get(section)
        if not variable.startswith(PREFIX) or info is None or not isinstance(info.default, _Section):
            continue
        table = values.setdefault(section, {})
        if not isinstance(table, dict):
            continue  # the file's own fault, which validation will tell
        field = type(info.default).model_fields.get(key)
        is_list = field is not None and isinstance(field.default, list)
        table[key] = [x for x in text.split(":") if x] if is_list else text
        origin[section, key] = variable
    return origin


def _problem(file: str, text: str, origin: Mapping[tuple[str, ...], str], error: dict[str, Any]) -> Problem:
    place = tuple(str(x) for x in error["loc"])
    variable = origin.get(place[:2])
    said = "is not a setting; `tocsin doctor --settings` lists them all"
    if error["type"] != "extra_forbidden":
        said = str(error["msg"])
    where = ".".join(place[1:])
    said = f"[{place[0]}] {where}: {said}" if where else f"[{place[0]}]: {said}"
    return Problem(variable or file, 0 if variable else _line(text, place), said)


def _line(text: str, place: tuple[str, ...]) -> int:
    """Line (from 1) of the key in the file's text; its section's when it is not found, 0 without either."""
    section, found = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w.-]+)\s*\]", line)
        section = header[1] if header else section
        if header and section == place[0]:
            found = number
        key = re.match(r"\s*([\w-]+)\s*=", line)
        if key and ((section, key[1]) == place[:2] or (not section and key[1] == place[0])):
            return number
    return found


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
