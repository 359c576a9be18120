"""One file, overridden by the environment; every wrong key is named with the place it was set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tocsin import settings
from tocsin.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "tocsin.toml"
    file.write_text(text)
    return file


def test_defaults_need_no_file(tmp_path: Path) -> None:
    loaded = settings.load(write(tmp_path, ""), {})
    assert loaded.store.url == "sqlite"
    assert loaded.socket("sensor") == Path("/run/tocsin/sensor.sock")


def test_the_environment_is_above_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[store]\nurl = "sqlite:/a.db"\n[sensor]\nring_mib = 4\n')
    loaded = settings.load(
        file,
        {
            "TOCSIN_STORE_URL": "http://127.0.0.1:9200",
            "TOCSIN_SENSOR_QUEUE_EVENTS": "2048",
            "TOCSIN_SENSOR_STRICT": "true",
            "TOCSIN_CORRELATOR_RULES": "/a:/b",
        },
    )
    assert loaded.store.url == "http://127.0.0.1:9200"
    assert (loaded.sensor.ring_mib, loaded.sensor.queue_events, loaded.sensor.strict) == (4, 2048, True)
    assert loaded.correlator.rules == [Path("/a"), Path("/b")]


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("[store]\nurll = 'x'\n", {}, "tocsin.toml:2: [store] urll: is not a setting"),
        ("[sotre]\nurl = 'x'\n", {}, "tocsin.toml:1: [sotre]: is not"),
        ("[sensor]\nring_mib = 0\n", {}, "tocsin.toml:2: [sensor] ring_mib: "),
        ("store = 3\n", {}, "tocsin.toml:1: [store]: "),
        ("[store\n", {}, "tocsin.toml:1: is not TOML"),
        ("", {"TOCSIN_SENSOR_RING_MIB": "lots"}, "TOCSIN_SENSOR_RING_MIB: [sensor] ring_mib: "),
        ("", {"TOCSIN_SENSOR_RINGMIB": "4"}, "TOCSIN_SENSOR_RINGMIB: [sensor] ringmib: is not a setting"),
        ("store = 3\n", {"TOCSIN_STORE_URL": "sqlite"}, "tocsin.toml:1: [store]: "),
    ],
)
def test_wrong_keys_are_named(tmp_path: Path, text: str, environ: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.load(write(tmp_path, text), environ)
    assert expected in str(caught.value)


def test_all_wrong_keys_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.load(write(tmp_path, "[store]\na = 1\n[sensor]\nb = 2\n"), {})
    assert len(caught.value.problems) == 2


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        settings.load(tmp_path / "none.toml", {})


def test_secrets_come_from_files_and_variables_and_are_never_quoted(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    loaded = settings.load(
        write(tmp_path, f'[secrets]\nkey = "{tmp_path}/key"\ngone = "{tmp_path}/gone"\nbytes = "{tmp_path}/bytes"\n'),
        {},
    )
    assert settings.secret(loaded, "key", {}) == "s3cret"
    assert settings.secret(loaded, "key", {"TOCSIN_SECRET_KEY": "other"}) == "other"
    with pytest.raises(ConfigError, match="'gone' cannot be read: No such file"):
        settings.secret(loaded, "gone", {})
    with pytest.raises(ConfigError, match="'bytes' cannot be read: it is not text"):
        settings.secret(loaded, "bytes", {})
    with pytest.raises(ConfigError, match="TOCSIN_SECRET_NOPE"):
        settings.secret(loaded, "nope", {})
