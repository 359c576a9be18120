"""pySigma's typed values -> tests of our tree. What this engine cannot do is refused here, in words."""

from __future__ import annotations

import ipaddress
import re

from sigma.types import (
    CompareOperators,
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaRegularExpressionFlag,
    SigmaString,
    SigmaTimestampPart,
    SigmaType,
    SpecialChars,
)

from correlator.fields import Field, find
from correlator.tree import Compare, Exists, Flag, Glob, Match, Networks, Node, Numbers, Op, Or, Regex, Same, Test, Text

_COMPARE = {
    CompareOperators.LT: "<",
    CompareOperators.LTE: "<=",
    CompareOperators.GT: ">",
    CompareOperators.GTE: ">=",
}
_REGEX_FLAGS = {
    SigmaRegularExpressionFlag.IGNORECASE: "i",
    SigmaRegularExpressionFlag.MULTILINE: "m",
    SigmaRegularExpressionFlag.DOTALL: "s",
}


def any_of(field: Field, values: list[SigmaType], line: int) -> Node:
    """Holds when one of the values does; equal tests are merged into one. Raises ValueError."""
    nodes = _merged([one(field, value, line) for value in values])
    return nodes[0] if len(nodes) == 1 else Or(tuple(nodes))


def one(field: Field, value: SigmaType, line: int) -> Node:
    """The condition `field: value`. Raises ValueError that says why it cannot be one."""
    if isinstance(value, SigmaExpansion):
        return any_of(field, value.values, line)
    if isinstance(value, SigmaFieldReference):
        return _reference(field, value, line)
    return Match(field, _test(field, value), line)


def _test(field: Field, value: SigmaType) -> Test:
    if isinstance(value, SigmaNull):
        return Exists(False)
    if isinstance(value, SigmaExists):
        return Exists(value.exists)
    if field.kind == "time":
        raise ValueError(f"{field.path} is a time: only |exists and null are possible")
    match value:
        case SigmaString():
            return _string(field, value)
        case SigmaTimestampPart():
            raise ValueError("parts of a time are not supported")
        case SigmaNumber():
            return _number(field, value.number)
        case SigmaBool():
            return _flag(field, value.boolean)
        case SigmaRegularExpression():
            return _regex(value)
        case SigmaCIDRExpression():
            if field.kind not in ("ip", "text"):
                raise ValueError(f"{field.path} is a {field.kind}, not an address")
            return Networks((value.network,))
        case SigmaCompareExpression(op=op) if op in _COMPARE:
            if field.kind != "number":
                raise ValueError(f"{field.path} is not a number: it cannot be compared with {_COMPARE[op]}")
            return Compare(_COMPARE[op], value.number.number)
        case _:
            raise ValueError(f"values of type {type(value).__name__} are not supported")


def _number(field: Field, number: int | float) -> Test:
    if field.kind == "flag":
        raise ValueError(f"{field.path} is true or false, not {number}")
    return Numbers((number,)) if field.kind == "number" else Text(Op.EQUALS, (str(number),))


def _flag(field: Field, value: bool) -> Test:
    if field.kind != "flag":
        raise ValueError(f"{field.path} is a {field.kind}; put quotes around {str(value).lower()} if text is meant")
    return Flag(value)


def _string(field: Field, value: SigmaString) -> Test:
    test = _pattern(value)
    if not isinstance(test, Text) or test.op != Op.EQUALS:
        return test
    text = test.values[0]
    if field.kind == "flag":
        if text not in ("true", "false"):
            raise ValueError(f"{field.path} is true or false, not {text!r}")
        return Flag(text == "true")
    if field.kind == "number":
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError(f"{field.path} is a number, not {text!r}")
        return Numbers((int(text),))
    if field.kind == "ip":
        try:
            return Networks((ipaddress.ip_network(text),))  # one address has many spellings
        except ValueError as e:
            raise ValueError(f"{field.path} is an address, not {text!r}") from e
    return test


def _pattern(value: SigmaString) -> Test:
    """Text, with `*` and `?` as Sigma means them."""
    cased = isinstance(value, SigmaCasedString)
    segments, single = [""], False
    for part in value.s:
        if isinstance(part, Placeholder):
            raise ValueError(f"the placeholder %{part.name}% has no values here")
        if isinstance(part, str):
            segments[-1] += part if cased else part.lower()
        elif part is SpecialChars.WILDCARD_MULTI:
            segments.append("")
        else:
            single = True
    if single:
        return _wildcards(value, cased)
    first, *middle, last = segments if len(segments) > 1 else (*segments, None)
    middle = [x for x in middle if x]
    match (first, middle, last):
        case (text, [], None):
            return Text(Op.EQUALS, (text or "",), cased)
        case ("", [], ""):
            return Exists(True)
        case (text, [], "") if text:
            return Text(Op.STARTS, (text,), cased)
        case ("", [], text) if text:
            return Text(Op.ENDS, (text,), cased)
        case ("", [text], "") if text:
            return Text(Op.CONTAINS, (text,), cased)
    return Glob((first or "", *(x for x in middle if x), last or ""), cased)


def _wildcards(value: SigmaString, cased: bool) -> Regex:
    """`?` is rare: a regular expression does."""
    signs = {SpecialChars.WILDCARD_MULTI: ".*", SpecialChars.WILDCARD_SINGLE: "."}
    body = "".join(re.escape(x) if isinstance(x, str) else signs[x] for x in value.s if not isinstance(x, Placeholder))
    return Regex(rf"(?{'s' if cased else 'is'})\A{body}\z")


def _regex(value: SigmaRegularExpression) -> Regex:
    flags = "".join(_REGEX_FLAGS[flag] for flag in sorted(value.flags, key=lambda flag: flag.name))
    try:
        return Regex(f"(?{flags})" * bool(flags) + value.regexp.original)
    except ValueError as e:
        raise ValueError(f"RE2, the linear-time engine used here, refuses this expression: {e}") from e


def _reference(field: Field, value: SigmaFieldReference, line: int) -> Same:
    other = find(value.field)
    if other is None:
        raise ValueError(f"unknown field {value.field!r}")
    if field.many or other.many:
        raise ValueError("|fieldref compares single values, not lists")
    match (value.starts_with, value.ends_with):
        case (True, True):
            op = Op.CONTAINS
        case (True, False):
            op = Op.STARTS
        case (False, True):
            op = Op.ENDS
        case _:
            op = Op.EQUALS
    return Same(field, op, other, line)


def _merged(nodes: list[Node]) -> list[Node]:
    """Equal kinds of test on one field become one test with several values: faster, and shorter to explain."""
    out: list[Node] = []
    for node in nodes:
        last = out[-1] if out else None
        if isinstance(node, Match) and isinstance(last, Match) and (both := _union(last.test, node.test)):
            out[-1] = Match(last.field, both, last.line)
        else:
            out.append(node)
    return out


def _union(a: Test, b: Test) -> Test | None:
    match (a, b):
        case (Text(), Text()) if a.op == b.op and a.cased == b.cased:
            return Text(a.op, (*a.values, *b.values), a.cased)
        case (Numbers(), Numbers()):
            return Numbers((*a.values, *b.values))
        case (Networks(), Networks()):
            return Networks((*a.networks, *b.networks))
    return None
