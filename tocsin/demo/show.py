"""What a person sees of the demo: a table that grows on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from tocsin.demo.timeline import HOPS, Line
from tocsin.printable import printable

if TYPE_CHECKING:
    from rich.text import Text


class Show(Protocol):
    names: Mapping[str, str]
    """Full name of a container -> the short one people read."""

    def say(self, text: str) -> None:
        """One sentence about what happens now."""

    def update(self, lines: Sequence[Line]) -> None:
        """The alerts so far, with what was done about each."""

    def close(self) -> None: ...


def choose(to_stderr: bool) -> Show:
    """A live table if a person looks at it. To stderr when stdout belongs to --json."""
    stream = sys.stderr if to_stderr else sys.stdout
    return Live(to_stderr) if stream.isatty() else Plain(to_stderr)


class Plain:
    """Each fact once, on a line with the seconds since the start."""

    names: Mapping[str, str]

    def __init__(self, to_stderr: bool = False) -> None:
        self._stream = sys.stderr if to_stderr else sys.stdout
        self.names = {}
        self._begun = time.monotonic()
        self._told: set[tuple[str, str]] = set()

    def say(self, text: str) -> None:
        self._stream.write(f"{time.monotonic() - self._begun:6.2f} s  {_short(text, self.names)}\n")
        self._stream.flush()

    def update(self, lines: Sequence[Line]) -> None:
        for line in lines:
            for key, text in facts(line):
                if (line.id, key) not in self._told:
                    self._told.add((line.id, key))
                    self.say(text)

    def close(self) -> None:
        self._stream.flush()


class Live:
    """The story above, the table of alerts below it."""

    names: Mapping[str, str]

    def __init__(self, to_stderr: bool = False) -> None:
        from rich.live import Live as RichLive

        from tocsin.terminal import console

        self.names = {}
        self._begun = time.monotonic()
        self._live = RichLive(console=console(stderr=to_stderr), refresh_per_second=8, transient=False)
        self._live.start()

    def say(self, text: str) -> None:
        from rich.text import Text

        seconds = Text(f"{time.monotonic() - self._begun:6.2f} s  ", style="dim")
        self._live.console.print(seconds + Text(_short(text, self.names)))

    def update(self, lines: Sequence[Line]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(title="milliseconds since the kernel saw it", title_justify="left", title_style="dim")
        table.add_column("rule")
        table.add_column("container")
        for hop in HOPS:
            table.add_column(hop, justify="right")
        table.add_column("answer")
        for line in lines:
            times = (line.latency_ms[hop] for hop in HOPS)
            table.add_row(
                Text(printable(line.rule), style="bold red"), Text(_short(line.container, self.names)),
                *(Text("" if value is None else f"{value:.1f}") for value in times), _answer(line),
            )  # fmt: skip
        self._live.update(table)

    def close(self) -> None:
        self._live.stop()


def _short(text: str, names: Mapping[str, str]) -> str:
    for full, short in names.items():
        text = text.replace(full, short)
    return printable(text)


def facts(line: Line) -> list[tuple[str, str]]:
    """(key, sentence) for everything known about the alert, in the order of the story."""
    found = [("alert", f"ALERT {line.rule} for {line.container}: {_timing(line, ('captured', 'stored', 'matched'))}")]
    for step in line.steps:
        times = step.latency
        parts = [
            f"{hop} {value:.1f} ms" for hop in HOPS[3:] if isinstance(value := getattr(times, f"{hop}_ms", None), float)
        ]
        found.append(
            (
                f"step {step.run_id} {step.name}",
                f"  {_step(step.playbook, step.action, step.outcome)}: {', '.join(parts)}",
            )
        )
    for step in line.undone:
        found.append(
            (f"undo {step.run_id} {step.name}", f"  undone: {_step(step.playbook, step.action, step.outcome)}")
        )
    return found


def _timing(line: Line, hops: Sequence[str]) -> str:
    known = ((hop, line.latency_ms[hop]) for hop in hops)
    return ", ".join(f"{hop} {value:.1f} ms" for hop, value in known if value is not None)


def _step(playbook: str, action: str, outcome: str) -> str:
    return f"{playbook} {action} {outcome}"


def _answer(line: Line) -> Text:
    from rich.text import Text

    undone = {(step.run_id, step.name) for step in line.undone}
    parts = (
        f"{step.action.rpartition('.')[2]} {'✓' if step.verified else step.outcome}"
        f"{' undone' if (step.run_id, step.name) in undone else ''}"
        for step in line.steps
    )
    return Text(printable(", ".join(parts)))
