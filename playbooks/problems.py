"""How mistakes in a playbook file are told: where (the line), what, and what to write instead. Owns no rule itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from playbooks.document import LABEL, NAME, STEP_ID, Document
from playbooks.references import fields_by_key
from tocsin import strict_yaml
from tocsin.errors import Problem

Place = tuple[str | int, ...]
"""Way from a document's top to one value: ("steps", 0, "with")."""


_PATTERNS = {
    NAME: "must be of lower case letters, digits and '-'",
    STEP_ID: "must be of lower case letters, digits and '_', and begin with a letter",
    LABEL: "must be a label, or label=value",
}
_MAX_SHOWN_CHARS = 40


def document_problems(file: str, source: Any, error: ValidationError) -> list[Problem]:
    """One problem per place: pydantic tells each arm of a union apart, people do not."""
    found: dict[Place, Problem] = {}
    for x in error.errors(include_url=False):
        missing = x["type"] in ("extra_forbidden", "missing")
        place = x["loc"] if missing else x["loc"][: _depth(source, x["loc"])]
        text = f"{dotted(place)}: {sentence({**x, 'loc': place})}"
        found.setdefault(place, Problem(file, line_of(source, place), text))
    return list(found.values())


def _depth(source: Any, place: Place) -> int:
    """How many steps of a place exist in what was written."""
    for n, part in enumerate(place):
        inside = part in source if isinstance(source, dict) else isinstance(source, list) and isinstance(part, int)
        if not inside:
            return n
        source = source[part]
    return len(place)


def line_of(source: Any, place: Place) -> int:
    """The line of a value, or of the nearest thing around it that has one."""
    line = source.line if isinstance(source, strict_yaml.Mapping | strict_yaml.Sequence) else 1
    for part in place:
        if isinstance(source, strict_yaml.Mapping) and part in source:
            line, source = source.lines[str(part)], source[str(part)]
        elif isinstance(source, strict_yaml.Sequence) and isinstance(part, int) and part < len(source):
            line, source = source.lines[part], source[part]
        else:
            break
    return line


def sentence(error: Mapping[str, Any]) -> str:
    """pydantic's error in the words of whoever writes playbooks. Shows what was written if the error has its input."""
    place: Place = error["loc"]
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return f"is not a field here{near(str(place[-1]), _keys_at(place[:-1]))}"
        case "missing":
            return "is missing"
        case "literal_error" | "enum" if context["expected"] == "True":
            return "can only be true: what is missing never matches"
        case "literal_error" | "enum":
            return f"must be {context['expected']}{_instead(error)}"
        case "string_pattern_mismatch":
            return _PATTERNS.get(context["pattern"], f"must be like {context['pattern']}") + _instead(error)
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a mapping{_instead(error)}"
        case "list_type":
            return f"must be a list{_instead(error)}"
        case "string_type":
            return f"must be a text{_instead(error)}"
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")


def _instead(error: Mapping[str, Any]) -> str:
    if "input" not in error:
        return ""
    shown = repr(error["input"])
    return f", not {shown if len(shown) <= _MAX_SHOWN_CHARS else shown[:_MAX_SHOWN_CHARS] + '...'}"


def _keys_at(place: Place) -> list[str]:
    """What may be written at that place of a document."""
    model: type[BaseModel] = Document
    for part in place:
        field = fields_by_key(model.model_fields).get(str(part))
        model = next(iter(_models(field.annotation)), model) if field else model
    return list(fields_by_key(model.model_fields))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def dotted(place: Place) -> str:
    """The place as people write it: steps[0].with.url."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).removeprefix(".") or "the file"


def near(name: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a sentence."""
    choices = sorted(known)
    found = difflib.get_close_matches(name, choices, 1)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f"; there are {', '.join(choices)}" if 0 < len(choices) <= 12 else ""
