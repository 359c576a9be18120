"""The filters that `events` and `alerts` share: from options to a Query."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tocsin.errors import UsageError

if TYPE_CHECKING:
    from store import Query

Container = Annotated[str | None, typer.Option("--container", help="Name, or at least 4 digits of the id.")]
Since = Annotated[str | None, typer.Option("--since", help="10m, 2h, 3d ago, or 2025-11-20T12:30 (UTC or +01:00).")]
Until = Annotated[str | None, typer.Option("--until", help="The same, for the end.")]
Text = Annotated[str | None, typer.Option("--text", help="Part of a name, path, command line or rule.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="FIELD=VALUE", help="Exact value of a field; may be given several times."),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Most results.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def moment(text: str, now: datetime | None = None) -> datetime:
    """A point in time: so long ago (`10m`), or an ISO date. UsageError shows how it is written."""
    span = re.fullmatch(r"([0-9]{1,7})([smhd])", text)
    if span:
        return (now or datetime.now(UTC)) - timedelta(seconds=int(span[1]) * _UNITS[span[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError as e:
        raise UsageError(f"{text!r} is no time: write 10m, 2h, 3d or 2025-11-20T12:30") from e
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def fields(pairs: Sequence[str]) -> dict[str, list[str]]:
    """`--where a=1 --where a=2` means either; different fields must all hold."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals or not field:
            raise UsageError(f"--where {pair!r}: write field=value, as in --where process.name=curl")
        found.setdefault(field, []).append(value)
    return found


def query(
    *,
    datasets: Sequence[str] = (),
    action: str | None = None,
    container: str | None = None,
    since: str | None = None,
    until: str | None = None,
    text: str | None = None,
    where: Sequence[str] | None = None,
    limit: int = 100,
) -> Query:
    from store import Query

    wanted = fields(where or ())
    if action is not None:
        wanted.setdefault("event.action", []).append(action)
    return Query(
        datasets=[d if "." in d else f"tocsin.{d}" for d in datasets],
        since=moment(since) if since else None,
        until=moment(until) if until else None,
        container=container,
        text=text,
        where=wanted,
        limit=limit,
    )
