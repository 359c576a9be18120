"""What a command prints. Owns tables, JSON lines and error lines; data is always text here, never markup or escapes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tocsin.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

LEAST_WIDTH = 6
UNCUT = {"ID", "RUN"}
"""Columns that are there to be copied."""

PIPE_WIDTH = 240
"""Columns of a table that goes into a file or a pipe, where nobody wraps."""


def console(stderr: bool = False) -> Console:
    """rich decides on colours: only on a terminal, and not when NO_COLOR is set."""
    from rich.console import Console

    out = sys.stderr if stderr else sys.stdout
    width = None if out.isatty() else PIPE_WIDTH
    return Console(file=out, markup=False, highlight=False, emoji=False, soft_wrap=False, width=width)


def print_json(value: Any) -> None:
    """One line of pure ASCII: even inside JSON no raw control character reaches a terminal. Flushed, for followers."""
    sys.stdout.write(json.dumps(value, default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing to show") -> None:
    """Rows of plain values; long cells are cut to the terminal, but never ids and what is aligned right: numbers, whose
    headings end in `>`."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    cells = [[_cell(value) for value in row] for row in rows]
    names = [Text(heading.rstrip(">")) for heading in headings]
    widths = [max(cell.cell_len for cell in column) for column in zip(names, *cells, strict=True)]
    flexible = [i for i, heading in enumerate(headings) if not heading.endswith(">") and heading not in UNCUT]
    _narrow(widths, flexible, out.width - 2 * len(widths) + 2)
    for heading, name, width in zip(headings, names, widths, strict=True):
        table.add_column(name, justify="right" if heading.endswith(">") else "left", no_wrap=True, width=width)
    for row in cells:
        table.add_row(*row)
    out.print(table if cells else empty)


def _narrow(widths: list[int], flexible: Sequence[int], room: int) -> None:
    """Takes from the widest first: rich takes from all alike, and leaves nothing of the short ones."""
    while flexible and sum(widths) > room:
        widest = max(flexible, key=lambda i: widths[i])
        if widths[widest] <= LEAST_WIDTH:
            return
        widths[widest] -= 1


def _cell(value: object) -> Any:
    from rich.text import Text

    if isinstance(value, Text):
        return value
    return Text("" if value is None else printable(str(value), PIPE_WIDTH), overflow="ellipsis")


STYLES = {
    "ok": "green", "running": "green", "success": "green", "changed": "green", "done": "green",
    "warn": "yellow", "waiting": "yellow", "high": "red", "medium": "yellow",
    "fail": "red", "failed": "red", "down": "red", "critical": "red bold", "denied": "red", "timeout": "red",
}  # fmt: skip


def state(word: str) -> Any:
    """A state's word in its colour."""
    from rich.text import Text

    return Text(printable(word, 40), style=STYLES.get(word, ""))


def print_state(word: str, text: str) -> None:
    """`[ ok ] text`, the word in its colour; long text wraps."""
    from rich.text import Text

    console().print(
        Text("[") + Text(f"{word:^4}", STYLES.get(word, "")) + Text(f"] {printable(text)}"), overflow="fold"
    )


def print_line(text: str, style: str = "") -> None:
    """One line of text, made safe and cut to the terminal's width."""
    from rich.text import Text

    out = console()
    out.print(Text(printable(text, out.width), style=style), no_wrap=True, overflow="ellipsis")


def print_text(text: str, style: str = "") -> None:
    """Several lines of our own or the user's text, each made safe, long ones wrapped."""
    from rich.text import Text

    out = console()
    for line in text.split("\n"):
        out.print(Text(printable(line), style=style), overflow="fold")


def print_error(text: str) -> None:
    """`error: ...` on stderr, one line for each problem."""
    for line in text.split("\n"):
        sys.stderr.write(f"error: {printable(line)}\n")
