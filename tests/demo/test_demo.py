"""The demo as people start it: everything holds, the shape of its JSON is kept, and nothing stays behind."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from tocsin.lab import Lab, outside, runs
from tocsin.lab.client import labelled

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

HOPS = {"captured", "stored", "matched", "decided", "acted", "verified"}


def demo(*options: str) -> dict[str, Any]:
    """The JSON object that `tocsin demo --json` printed last; it must have exited 0."""
    command = [sys.executable, "-P", "-m", "tocsin", "demo", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return verdict


def check(verdict: dict[str, Any]) -> None:
    assert verdict["ok"] is True
    assert [alert["rule"] for alert in verdict["alerts"]] == [
        "port-scan", "interactive-shell-in-container", "unexpected-egress",
    ]  # fmt: skip
    for alert in verdict["alerts"]:
        assert set(alert["latency_ms"]) == HOPS
        assert all(value > 0 for value in alert["latency_ms"].values())
    assert all(step["verified"] is True and step["outcome"] == "changed" for step in verdict["steps"])
    assert {step["playbook"] for step in verdict["steps"]} == {
        "contain-interactive-shell", "cut-unexpected-egress", "notify",
    }  # fmt: skip
    assert (verdict["undone"], verdict["webhooks"]) == (3, 3)
    assert (verdict["false_alerts"], verdict["lost"]) == (0, 0)
    assert verdict["events"] > 50


def owned() -> list[str]:
    things = [run for kind in ("container", "network", "image") for run in labelled(kind, runs.LABEL).values()]
    return [*things, *outside.interfaces().values()]


def test_all_holds_and_nothing_stays_behind_nor_is_anything_of_others_touched() -> None:
    with Lab() as lab:
        stranger = lab.container("stranger")
        with stranger.terminal("sh"):  # what the demo's playbooks would answer in one of their own
            check(demo())
            assert stranger.status() == "running"
            assert stranger.networks() == {lab.network}
        alive = {run for run in owned() if not runs.is_dead(run)}
        assert lab.run in alive
        assert [run for run in owned() if runs.is_dead(run)] == []


@pytest.mark.elastic
def test_on_elasticsearch_the_documents_are_found_by_a_plain_query(elastic_url: str) -> None:
    verdict = demo("--store", elastic_url)
    check(verdict)
    for alert in verdict["alerts"]:
        found = search(elastic_url, {"rule.id": alert["rule"], "container.name": alert["container"]})
        datasets = {hit["_source"]["event"]["dataset"] for hit in found}
        assert {"tocsin.alert", "tocsin.response"} <= datasets


def search(url: str, terms: dict[str, str]) -> list[dict[str, Any]]:
    query = {"size": 100, "query": {"bool": {"filter": [{"term": {path: value}} for path, value in terms.items()]}}}
    request = urllib.request.Request(
        f"{url}/logs-tocsin.*/_search", json.dumps(query).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        hits: list[dict[str, Any]] = json.load(answer)["hits"]["hits"]
    return hits


@pytest.mark.parametrize("store", ["nonsense", "http://127.0.0.1:1"])
def test_a_demo_that_cannot_start_says_why_and_leaves_nothing(store: str) -> None:
    command = [sys.executable, "-P", "-m", "tocsin", "demo", "--store", store]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode in (1, 2)
    assert store in done.stderr
    assert "Traceback" not in done.stderr
    assert [run for run in owned() if runs.is_dead(run)] == []
