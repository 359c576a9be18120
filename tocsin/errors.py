"""Every error a person may see. Imports nothing of ours: any package may use it."""

from __future__ import annotations

from dataclasses import dataclass


class TocsinError(Exception):
    """Something a person can mend. The message says what, where and what to do; never shown with a traceback."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One fault in one file. `line` counts from 1; 0 means the file as a whole."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class ConfigError(TocsinError):
    """Files that people write are wrong. Carries every problem found, not just the first."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(p) for p in problems))


class UsageError(TocsinError):
    """The command was called in a way that cannot work; says which way can."""

    exit_code = 2


class RetryLater(TocsinError):
    """The other side cannot take this now. `after_s` is its own advice in seconds, or None."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        self.after_s = after_s
        super().__init__(message)


class Rejected(TocsinError):
    """The other side will never take this as it is; sending it again is useless."""
