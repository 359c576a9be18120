"""The files people write, as the settings name them: rules, egress list, playbooks. Owns which ones are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tocsin.settings import CorrelatorSettings, PlaybookSettings, Settings

if TYPE_CHECKING:
    from correlator.ruleset import RuleSet
    from playbooks.schema import Playbook


def rule_directories(settings: Settings) -> list[Path]:
    from correlator.sigma import SHIPPED

    return [SHIPPED, *_chosen(settings.correlator.rules, CorrelatorSettings.model_fields["rules"].default)]


def load_rules(settings: Settings) -> RuleSet:
    """The shipped rules and the user's. ConfigError with every problem of every file."""
    from correlator import sigma

    return sigma.load(rule_directories(settings), settings.correlator.egress)


def playbook_directories(settings: Settings) -> list[Path]:
    from playbooks.schema import SHIPPED

    return [SHIPPED, *_chosen(settings.playbooks.playbooks, PlaybookSettings.model_fields["playbooks"].default)]


def load_playbooks(
    settings: Settings, rules: RuleSet | None = None, *, secrets: Callable[[str], str] | None = None
) -> list[Playbook]:
    """The shipped playbooks and the user's, which stand in for shipped ones of the same file name.

    With `rules`, each rule that a playbook names must be there; with `secrets`, which reads one, each secret too.
    ConfigError with every problem of every file.
    """
    from playbooks import schema

    names = None if rules is None else rule_names(rules)
    return schema.load(playbook_directories(settings), secrets=secrets, rules=names)


def _chosen(directories: Sequence[Path], default: Sequence[Path]) -> list[Path]:
    """A default directory need not be there; one that somebody set is passed on, and its absence told."""
    return [path for path in directories if path not in default or path.is_dir()]


def rule_names(rules: RuleSet) -> set[str]:
    """What a playbook may call the rules: by name or id."""
    return {x for rule in rules.rules for x in (rule.name, rule.uuid)}
