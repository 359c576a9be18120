"""The egress allow-list: what it allows, and nothing that only looks alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from correlator import egress, sample, sigma
from correlator.compile import Matcher
from correlator.ruleset import LogSource
from correlator.tree import full_repository
from correlator.verdict import verdict
from tocsin.errors import ConfigError

CONNECT = LogSource("tocsin.network", "connect")

LIST = """\
networks: [10.0.0.0/8, {network: 9.9.9.9/32, ports: [53, 853]}]
images:
  nginx: [203.0.113.0/24]
  registry.example:5000/team/*: [{network: 198.51.100.0/24, ports: [443]}]
labels:
  tocsin.egress=any: [0.0.0.0/0, "::/0"]
"""


def allows(path: Path, content: dict[str, Any]) -> bool:
    node = egress.load(path)
    return verdict(node, sample.event([content], 0, CONNECT)) is True


@pytest.mark.parametrize(
    ("image", "ip", "port", "allowed"),
    [
        ("any", "10.2.3.4", 1, True),
        ("any", "::ffff:10.2.3.4", 1, True),
        ("any", "9.9.9.9", 53, True),
        ("any", "9.9.9.9", 443, False),
        ("any", "203.0.113.9", 443, False),
        ("nginx", "203.0.113.9", 4444, True),
        ("nginx:1.25-alpine", "203.0.113.9", 80, True),
        ("docker.io/library/nginx@sha256:" + "a" * 64, "203.0.113.9", 80, True),
        ("nginx", "203.0.114.9", 80, False),
        ("evil/nginx", "203.0.113.9", 80, False),
        ("evil.example/nginx", "203.0.113.9", 80, False),
        ("evil.example/library/nginx", "203.0.113.9", 80, False),
        ("nginx-evil", "203.0.113.9", 80, False),
        ("nginx/evil", "203.0.113.9", 80, False),
        ("x@nginx", "203.0.113.9", 80, False),
        ("NGINX", "203.0.113.9", 80, False),
        ("sha256:" + "a" * 64, "203.0.113.9", 80, False),
        ("registry.example:5000/team/app:v1", "198.51.100.1", 443, True),
        ("registry.example:5000/team/sub/app", "198.51.100.1", 443, True),
        ("registry.example:5000/team/app", "198.51.100.1", 80, False),
        ("registry.example:5000/teamx/app", "198.51.100.1", 443, False),
        ("registry.example/team/app", "198.51.100.1", 443, False),
        ("team/app", "198.51.100.1", 443, False),
    ],
)
def test_images_and_networks(tmp_path: Path, image: str, ip: str, port: int, allowed: bool) -> None:
    (tmp_path / "egress.yml").write_text(LIST)
    content = {"container.image.name": image, "destination": {"ip": ip, "port": port}}
    assert allows(tmp_path / "egress.yml", content) is allowed


@pytest.mark.parametrize(
    ("labels", "allowed"),
    [
        ({"tocsin.egress": "any"}, True),
        ({"tocsin.egress": "ANY"}, False),
        ({"tocsin.egress": "any "}, False),
        ({"tocsin.Egress": "any"}, False),
        ({"tocsin": "egress=any"}, False),
        ({}, False),
    ],
)
def test_labels_compare_exactly(tmp_path: Path, labels: dict[str, str], allowed: bool) -> None:
    (tmp_path / "egress.yml").write_text(LIST)
    content = {"container": {"labels": labels}, "destination": {"ip": "2001:db8::1", "port": 443}}
    assert allows(tmp_path / "egress.yml", content) is allowed


def test_the_list_is_compiled_into_the_rule_that_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "egress.yml").write_text(LIST)
    content = {"destination": {"ip": "192.168.0.1", "port": 80}}
    event = sample.event([content], 0, CONNECT)
    for path, fires in [(None, False), (tmp_path / "egress.yml", True)]:
        rules = sigma.load([sigma.SHIPPED], path)
        assert ("unexpected-egress" in [r.name for r in Matcher(rules.rules).match(event)]) is fires
    assert sigma.load([sigma.SHIPPED]).digest != sigma.load([sigma.SHIPPED], tmp_path / "egress.yml").digest


@pytest.mark.parametrize("text", ["networks: []", "networks: null\nimages: {}", "labels: {}"])
def test_an_empty_list_allows_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "egress.yml").write_text(text.replace("networks: []", "networks:"))
    assert not allows(tmp_path / "egress.yml", {"destination": {"ip": "10.0.0.1", "port": 80}})


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("network: [10.0.0.0/8]", 1, "unknown key 'network'"),
        ("networks: 10.0.0.0/8", 1, "must be a list of networks"),
        ("networks: []", 1, "must be a list of networks"),
        ("networks:\n  - 10.0.0.0/8\n  - 10.0.0.1/8", 3, "no network: 10.0.0.1/8 has host bits set"),
        ("networks:\n  - example.org", 2, "no network"),
        ("networks:\n  - {network: 10.0.0.0/8, port: [80]}", 2, "unknown key 'port'"),
        ("networks:\n  - {network: 10.0.0.0/8, ports: [0]}", 2, "ports must be"),
        ("networks:\n  - {network: 10.0.0.0/8, ports: []}", 2, "ports must be"),
        ("networks:\n  - {ports: [80]}", 2, "no network"),
        ("images:\n  - nginx", 1, "must be a mapping"),
        ("images:\n  nginx:1.25: [10.0.0.0/8]", 2, "no image repository"),
        ("images:\n  'ngin*': [10.0.0.0/8]", 2, "no image repository"),
        ("images:\n  '*': [10.0.0.0/8]", 2, "no image repository"),
        ("images:\n  nginx: []", 2, "must be a list of networks"),
        ("labels:\n  tocsin.egress: [10.0.0.0/8]", 2, "must be label=value"),
        ("labels:\n  a=b: [10.0.0.0/8]\n  a=b: [10.0.0.0/8]", 3, "twice"),
    ],
)
def test_a_wrong_list_is_refused_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    (tmp_path / "egress.yml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        sigma.load([sigma.SHIPPED], tmp_path / "egress.yml")
    assert any(p.line == line and said in p.text for p in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1", "docker.io/library/nginx"),
        ("a/b:1", "docker.io/a/b"),
        ("localhost/a:1", "localhost/a"),
        ("r.example:5000/a", "r.example:5000/a"),
        ("r.example:5000/a:1@sha256:0", "r.example:5000/a"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx"),
    ],
)
def test_repository_names(image: str, full: str) -> None:
    assert full_repository(image) == full
