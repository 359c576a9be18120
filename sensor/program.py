"""What a process runs: its executable and arguments, and the name people know it by."""

from __future__ import annotations

from typing import NamedTuple

KEPT_TEXT = 2048
"""Longer strings are cut where they are kept for later: they come back in the events of children, as the parent's."""

KEPT_ARGS = 64
"""No more arguments are kept for later: thousands of short ones would take thirty times the room of their text."""

MULTI_CALL = frozenset({"busybox", "toybox"})


class Program(NamedTuple):
    """What an exec made of a process."""

    name: str
    executable: str
    args: list[str]
    args_count: int
    command_line: str
    working_directory: str

    def kept(self) -> tuple[Program, tuple[str, ...]]:
        """The same with every text at most KEPT_TEXT long and at most KEPT_ARGS arguments, and the event's fields that
        lost something."""
        cut: tuple[str, ...] = ()
        if len(self.executable) > KEPT_TEXT:
            cut += ("process.executable",)
        if len(self.command_line) > KEPT_TEXT or len(self.args) > KEPT_ARGS:
            cut += ("process.args",)
        if len(self.command_line) > KEPT_TEXT:
            cut += ("process.command_line",)
        if not cut:
            return self._replace(working_directory=self.working_directory[:KEPT_TEXT]), ()
        return self._replace(
            executable=self.executable[:KEPT_TEXT],
            args=first(self.args[:KEPT_ARGS], KEPT_TEXT),
            command_line=self.command_line[:KEPT_TEXT],
            working_directory=self.working_directory[:KEPT_TEXT],
        ), cut


def first(args: list[str], room: int) -> list[str]:
    """The arguments whose line, joined by spaces, is `room` long; the last of them may be cut."""
    kept: list[str] = []
    for arg in args:
        if room <= 0:
            break
        kept.append(arg[:room])
        room -= len(arg) + 1
    return kept


def called(executable: str, args: list[str]) -> str:
    """process.name: the executable's file name; of a multi-call binary the applet that argv makes it run."""
    base = executable.rpartition("/")[2]
    if base not in MULTI_CALL:
        return base
    for arg in args[:2]:
        applet = arg.rpartition("/")[2].lstrip("-")
        if applet and not applet.startswith(base):
            return applet
    return base
