"""What the doctor sees on this host, and on hosts that lack something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tocsin import doctor
from tocsin.settings import Settings, load

Tocsin = Callable[..., Any]


def checks(settings: Settings) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine(settings)}


@pytest.mark.docker
def test_this_host(settings: Settings) -> None:
    found = checks(settings)
    assert found["docker"].state == "ok"
    assert "cgroup v" in found["docker"].detail
    assert found["store"].state == "ok"
    assert found["processes"].detail == "none runs; the sockets are free"
    assert all(check.remedy for check in found.values() if check.state != "ok")


def test_no_docker_and_no_store(config: Path) -> None:
    found = checks(
        load(
            config,
            {"TOCSIN_SENSOR_DOCKER": "unix:///nowhere.sock", "TOCSIN_STORE_URL": "http://127.0.0.1:9"},
        )
    )
    assert (found["docker"].state, found["store"].state) == ("fail", "warn")
    assert "systemctl start docker" in found["docker"].remedy
    assert "wait in the spool" in found["store"].remedy


def test_open_directories_are_told(settings: Settings) -> None:
    settings.paths.state_dir.mkdir(mode=0o755)
    settings.paths.state_dir.chmod(0o755)
    assert checks(settings)["state_dir"].remedy == f"chmod 0700 {settings.paths.state_dir}"


def test_one_broken_check_hides_no_other(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Settings) -> Any:
        raise OSError("no /proc")
        yield

    monkeypatch.setattr(doctor, "_memory", broken)
    found = checks(settings)
    assert "OSError: no /proc" in found["broken"].detail
    assert "clock" in found


def test_settings_are_all_listed_and_secrets_never(tmp_path: Path, tocsin: Tocsin, config: Path) -> None:
    (tmp_path / "key").write_text("s3cret")
    config.write_text(f'{config.read_text()}[secrets]\nkey = "{tmp_path}/key"\n')
    ran = tocsin("doctor", "--settings", "--json")
    rows = {row["key"]: row for row in ran.rows}
    assert rows["paths.state_dir"]["value"] == f"{tmp_path}/state"
    assert rows["paths.state_dir"]["default"] == "/var/lib/tocsin"
    assert rows["store.url"]["variable"] == "TOCSIN_STORE_URL"
    assert all(row["description"] for row in rows.values())
    assert rows["secrets.key"]["value"] == f"{tmp_path}/key"
    assert "s3cret" not in ran.out + tocsin("doctor", "--settings").out
