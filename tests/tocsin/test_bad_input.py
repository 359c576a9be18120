"""Wrong files and wrong hosts: the file and line are named, exit 2, and nothing has started."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tocsin = Callable[..., Any]

PLAYBOOK = """\
name: mine
match:
  rules: [reverse-shell]
steps:
  - id: freeze
    uses: docker.pause
"""

RULE = """\
title: Mine
taxonomy: ecs
id: 5b1c7d56-5d3b-4f0a-9f0e-3d6c2f6d0c11
logsource: {category: process_creation, product: linux}
detection:
  sel:
    process.executable: foo
  condition: sel
level: low
"""


@functools.cache
def shipped_rules() -> Any:
    from correlator import sigma

    return sigma.load([sigma.SHIPPED])


@pytest.fixture
def quick_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all rules takes longer than all the rest."""
    monkeypatch.setattr("tocsin.inputs.load_rules", lambda _: shipped_rules())


def assert_refused(ran: Any, *expected: str) -> None:
    assert ran.code == 2, ran.err
    for text in expected:
        assert text in ran.err, ran.err
    assert "Traceback" not in ran.err


@pytest.mark.usefixtures("quick_rules")
@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("steps:", "colour: red\nsteps:", 4, "colour: is not a field here"),
        ("uses: docker.pause", "uses: docker.explode", 6, "there is no action 'docker.explode'"),
        ("  rules: [reverse-shell]", "  where:\n    - {field: process.name, near: sh}", 4, "near"),
        ("  rules: [reverse-shell]", "  where:\n    - {field: process.nmae, equals: sh}", 4, "'process.nmae' is not"),
        ("steps:", 'cooldown: {key: "{{ rule.nope }}", for: 1m}\nsteps:', 4, "rule.nope"),
        ("  rules: [reverse-shell]", "  {}", 2, "is empty"),
        ("name: mine", "name: mine\nname: other", 2, "twice"),
        ("name: mine", "name: mine\nmode: off", 2, "a bare off"),
        ("name: mine", "name: mine\non: push", 2, "a bare on"),
        ("    uses: docker.pause", "    uses: docker.pause\n    with: {grace: 3}", 7, "grace"),
        ("    uses: docker.pause", "    uses: docker.pause\n    timeout: 5", 7, "duration"),
    ],
)  # fmt: skip
def test_a_wrong_playbook(tocsin: Tocsin, tmp_path: Path, old: str, new: str, line: int, expected: str) -> None:
    file = tmp_path / "bad.yml"
    file.write_text(PLAYBOOK.replace(old, new))
    assert_refused(tocsin("playbooks", "check", str(file)), f"error: {file}:{line}: ", expected)


def test_a_wrong_playbook_stops_the_start(tocsin_process: Tocsin, tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text(PLAYBOOK.replace("name: mine", "name: mine\nmode: off"))
    ran = tocsin_process("start", "playbooks", environ={"TOCSIN_PLAYBOOKS_PLAYBOOKS": str(tmp_path)})
    assert_refused(ran, f"error: {tmp_path}/bad.yml:2: ")
    assert not (tmp_path / "state/playbooks/ledger.db").exists()


@pytest.mark.usefixtures("quick_rules")
def test_a_playbook_for_a_rule_that_is_not_there(tocsin: Tocsin, tmp_path: Path) -> None:
    file = tmp_path / "bad.yml"
    file.write_text(PLAYBOOK.replace("reverse-shell", "revers-shell"))
    ran = tocsin("playbooks", "check", str(file), "--json")
    assert ran.code == 2
    (row,) = ran.rows
    assert (row["file"], row["line"], row["ok"]) == (str(file), 3, False)
    assert "did you mean 'reverse-shell'" in row["problem"]


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("  condition: sel", "  condition: sel and 1 of nothing*", 8, "nothing*"),
        ("    process.executable: foo", "    process.nmae: foo", 7, "process.nmae"),
        ("level: low", "level: lo", 9, "level"),
        ("level: low", "level: low\nlevel: high", 10, "twice"),
        ("    process.executable: foo", "    process.executable|nope: foo", 7, "nope"),
    ],
)
def test_a_wrong_rule(tocsin: Tocsin, tmp_path: Path, old: str, new: str, line: int, expected: str) -> None:
    file = tmp_path / "mine.yml"
    file.write_text(RULE.replace(old, new))
    assert_refused(tocsin("rules", "check", str(tmp_path)), f"error: {file}:{line}: ", expected)


def test_a_wrong_rule_stops_the_start(tocsin_process: Tocsin, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(RULE.replace("level: low", "level: lo"))
    ran = tocsin_process("start", "correlator", environ={"TOCSIN_CORRELATOR_RULES": str(tmp_path)})
    assert_refused(ran, f"error: {tmp_path}/mine.yml:9: ")
    assert not (tmp_path / "run/correlator.sock").exists()


@pytest.mark.usefixtures("quick_rules")
def test_all_problems_of_all_files_at_once(tocsin: Tocsin, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(PLAYBOOK.replace("steps:", "x: 1\nz: 2\nsteps:"))
    (tmp_path / "b.yml").write_text(PLAYBOOK.replace("docker.pause", "docker.explode"))
    ran = tocsin("playbooks", "check", str(tmp_path), "--json")
    assert sorted((Path(r["file"]).name, r["line"]) for r in ran.rows) == [("a.yml", 4), ("a.yml", 5), ("b.yml", 6)]


def test_a_wrong_allow_list(tocsin_process: Tocsin, tmp_path: Path) -> None:
    file = tmp_path / "egress.yml"
    file.write_text("networks:\n  - 10.0.0.0/8\n  - 10.0.0.300\n")
    ran = tocsin_process("start", "correlator", environ={"TOCSIN_CORRELATOR_EGRESS": str(file)})
    assert_refused(ran, f"error: {file}:3: ")


@pytest.mark.parametrize("process", ["forwarder", "correlator", "playbooks", "sensor"])
def test_a_wrong_setting(tocsin_process: Tocsin, config: Path, process: str) -> None:
    config.write_text(config.read_text() + "[store]\nurll = 'x'\n")
    assert_refused(tocsin_process("start", process), f"error: {config}:5: [store] urll: is not a setting")


def test_an_unreadable_secret(tocsin_process: Tocsin, tmp_path: Path, config: Path) -> None:
    config.write_text(f'{config.read_text()}[store]\napi_key_secret = "key"\n[secrets]\nkey = "{tmp_path}/none"\n')
    assert_refused(tocsin_process("start", "forwarder"), f"error: {tmp_path}/none: the secret 'key' cannot be read")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nope", "[store] url: there is no store 'nope'"),
        ("http://nohost", "must name host and port"),
        ("http://a:b@h:9200", "credentials do not belong in the store's URL"),
        ("sqlite:/dev/null/x.db", "/dev/null/x.db: cannot be written: /dev/null is no directory"),
    ],
)
def test_a_wrong_store(tocsin_process: Tocsin, url: str, expected: str) -> None:
    assert_refused(tocsin_process("start", "forwarder", environ={"TOCSIN_STORE_URL": url}), expected)


def test_a_store_file_that_is_none(tocsin_process: Tocsin, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is no database, " * 100)
    ran = tocsin_process("start", "forwarder", environ={"TOCSIN_STORE_URL": f"sqlite:{tmp_path}/x.db"})
    assert_refused(ran, f"{tmp_path}/x.db: cannot be used as the store")


def test_a_state_directory_that_cannot_be(tocsin_process: Tocsin, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = tocsin_process("start", "forwarder", environ={"TOCSIN_PATHS_STATE_DIR": f"{tmp_path}/file"})
    assert_refused(ran, f"error: {tmp_path}/file: cannot be made")


LACKING = """
import sys
from unittest import mock
from sensor.checks import Check
from tocsin.cli import app
found = [Check("btf", False, "is not there", "boot a kernel with BTF"), Check("hook x", False, "is missing", "", False)]
sys.argv[1:] = ["start", "sensor"]
with mock.patch("sensor.checks.capabilities", lambda: found):
    app()
"""


def test_a_host_without_btf(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LACKING], capture_output=True, text=True, timeout=60,
        env={**os.environ, "TOCSIN_CONFIG": str(config)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: sensor: btf: is not there; mend it with: boot a kernel with BTF\n"


@pytest.mark.kernel
def test_not_root(config: Path) -> None:
    """Rights are what counts: a root without them is refused like any user."""
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-P", "-m", "tocsin", "start", "sensor"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "TOCSIN_CONFIG": str(config)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: sensor: rights: this process lacks CAP_BPF" in done.stderr
    assert "run the sensor as root" in done.stderr


def test_up_starts_nothing_when_anything_is_wrong(tocsin_process: Tocsin, tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text(PLAYBOOK.replace("steps:", "colour: red\nsteps:"))
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/mine.yml").write_text(RULE.replace("level: low", "level: lo"))
    ran = tocsin_process(
        "up",
        environ={"TOCSIN_PLAYBOOKS_PLAYBOOKS": str(tmp_path), "TOCSIN_CORRELATOR_RULES": str(tmp_path / "rules")},
    )
    assert_refused(ran, "bad.yml:4: ", "mine.yml:9: ", "error: nothing was started")
    assert not list((tmp_path / "run").glob("*.sock"))
    assert not (tmp_path / "state/forwarder/events").exists()
