"""`${secret:NAME}` in a text: finding it, and putting the secret in its place at the last moment. Owns no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from playbooks.action import SecretMark, Secrets

_REFERENCE = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_BEGINNING = re.compile(r"\$\{\s*secret", re.IGNORECASE)


def names_in(text: str) -> list[str]:
    """The secrets a text refers to. ValueError when something in it looks like a reference and is none."""
    if len(_BEGINNING.findall(text)) != len(found := _REFERENCE.findall(text)):
        raise ValueError("a secret is written ${secret:NAME}")
    return found


def reveal(text: str, secrets: Secrets) -> str:
    """The text with each secret in place. Raises ConfigError (names the place, never the value) if one cannot be read.

    The result must not be logged, stored or put into an error.
    """
    return _REFERENCE.sub(lambda found: secrets(found[1]), text)


def may_hold_secret(field: FieldInfo) -> bool:
    """Whether a parameter, or anything inside it, is declared SecretText."""
    return any(isinstance(m, SecretMark) for m in field.metadata) or _marked(field.annotation)


def _marked(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated and any(isinstance(m, SecretMark) for m in annotation.__metadata__):
        return True
    return any(_marked(inner) for inner in get_args(annotation))


def fields_by_key(fields: Mapping[str, FieldInfo]) -> dict[str, FieldInfo]:
    """The same fields, by the name people write."""
    return {field.alias or name: field for name, field in fields.items()}
