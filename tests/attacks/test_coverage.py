"""A rule that is shipped has been seen to fire on the real thing."""

from __future__ import annotations

from pathlib import Path

from correlator.sigma import SHIPPED


def test_every_rule_has_its_attack() -> None:
    rules = {path.stem for path in Path(SHIPPED).glob("*.yml")}
    attacks = {path.stem.removeprefix("test_").replace("_", "-") for path in Path(__file__).parent.glob("test_*.py")}
    assert rules <= attacks
