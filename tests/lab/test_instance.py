"""A Tocsin of the lab reads its own settings, whatever this host's are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tocsin.lab.instance import Instance


def test_its_settings_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_STORE_URL", "https://production:9200")
    instance = Instance(
        {"store": {"url": 'sqlite:/tmp/odd"name.db', "retain_mib": 64}, "playbooks": {"mode": "dry-run"}},
        {"TOCSIN_SENSOR_SCOPE": "all"},
        playbooks={"mine.yml": "name: mine\n"},
    )
    with_files = instance.settings
    try:
        assert with_files.store.url == 'sqlite:/tmp/odd"name.db'
        assert with_files.store.retain_mib == 64
        assert with_files.sensor.scope == "all"
        assert with_files.playbooks.mode == "dry-run"
        [directory] = with_files.playbooks.playbooks
        assert (directory / "mine.yml").read_text() == "name: mine\n"
        assert with_files.paths.state_dir.is_relative_to(instance.directory)
        assert with_files.paths.run_dir.is_relative_to(instance.directory)
    finally:
        instance.__exit__()
    assert not Path(instance.directory).exists()
