"""`tocsin up`: starts the processes, keeps them alive, stops them in order. Owns children, not what they do.

Nothing starts unless every child has checked its inputs: each says `checked` and waits for `go` (tocsin.processes).
A child that dies is started again, at first at once, then with a growing delay. If this process dies in any way, the
children see their stdin end and stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tocsin import running
from tocsin.errors import TocsinError

log = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 120.0
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 12.0
"""A child has this long between SIGTERM and SIGKILL."""
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 15.0
HEALTHY_AFTER_S = 5.0
"""A child that lived this long starts again without delay when it dies."""


class ChecksFailed(TocsinError):
    """A child refused its inputs. What was wrong has been printed by the child."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__("nothing was started")


@dataclass
class Child:
    """One process under supervision."""

    name: str
    command: Sequence[str]
    process: asyncio.subprocess.Process | None = None
    state: str = "starting"
    started_at: float = 0.0
    restarts: int = 0
    short_lives: int = 0
    last_exit: str | None = None
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    def public(self) -> dict[str, Any]:
        return {
            "pid": self.pid, "state": self.state, "started_at": self.started_at, "restarts": self.restarts,
            "last_exit": self.last_exit,
        }  # fmt: skip


class Supervisor:
    """Runs `commands` (name -> argv, in the order of starting) until told to stop."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        run_dir: Path,
        stop_order: Sequence[str],
        is_ready: Callable[[str], Awaitable[bool]],
        on_line: Callable[[str, str], None],
        on_ready: Callable[[float], None],
    ) -> None:
        self._children = {name: Child(name, command) for name, command in commands.items()}
        self._run_dir = run_dir
        self._stop_order = stop_order
        self._is_ready = is_ready
        self._on_line = on_line
        self._on_ready = on_ready
        self._begun = time.time()
        self._ready_s: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """From the check of all inputs to the orderly end. Raises ChecksFailed, or UsageError if one runs already."""
        with running.only_one(self._run_dir):
            begun = time.monotonic()
            stopped = asyncio.create_task(stop.wait())
            try:
                if not await self._check_all(stopped):
                    return
                keepers = [asyncio.create_task(self._keep(child, stopped)) for child in self._children.values()]
                readiness = asyncio.create_task(self._announce_ready(begun))
                await stopped
                readiness.cancel()
                await self._stop_all()
                await asyncio.gather(*keepers, readiness, return_exceptions=True)
            finally:
                stopped.cancel()

    async def _check_all(self, stopped: asyncio.Task[bool]) -> bool:
        """True once all children have been let go; False when stopped meanwhile."""
        children = list(self._children.values())
        printed: set[str] = set()

        def once(name: str, line: str) -> None:
            # Four children that read one broken settings file have one complaint.
            if line not in printed:
                printed.add(line)
                write_line(line)

        for child in children:
            await self._spawn(child, once)
        checks = asyncio.gather(*(self._checked(child) for child in children))
        both: set[asyncio.Future[Any]] = {checks, stopped}
        await asyncio.wait(both, timeout=CHECK_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if checks.done() and all(checks.result()):
            for child in children:
                self._go(child)
            self._publish()
            return True
        checks.cancel()
        await asyncio.gather(checks, return_exceptions=True)  # asyncio complains of a failure that nobody asked for
        for child in children:
            await self._end(child, signal.SIGKILL)
        if stopped.done():
            return False
        late = [c.name for c in children if c.last_exit is None]
        if late and not checks.done():
            raise TocsinError(f"{', '.join(late)}: the inputs were not checked within {CHECK_TIMEOUT_S:g} s")
        codes = [c.process.returncode or 0 for c in children if c.process is not None]
        raise ChecksFailed(2 if 2 in codes else 1)

    async def _spawn(self, child: Child, on_line: Callable[[str, str], None]) -> None:
        child.process = await asyncio.create_subprocess_exec(
            *child.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # its own group: Ctrl-C reaches the supervisor alone, which stops in order
            limit=1 << 20,
        )
        child.started_at = time.time()
        assert child.process.stderr is not None
        child.readers = [asyncio.create_task(self._forward(child, child.process.stderr, on_line))]

    async def _forward(self, child: Child, stream: asyncio.StreamReader, on_line: Callable[[str, str], None]) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit: dropped by the reader, and no reason to stop reading
                continue
            if not line:
                return
            handle = on_line if child.state == "starting" else self._on_line
            handle(child.name, line.decode(errors="replace").rstrip("\n"))

    async def _checked(self, child: Child) -> bool:
        """Whether the child said that its inputs are good; waits for its words or its end."""
        assert child.process is not None and child.process.stdout is not None
        word = await child.process.stdout.readline()
        if word == b"checked\n":
            return True
        await child.process.wait()
        await asyncio.gather(*child.readers)
        child.last_exit = _how(child.process.returncode)
        return False

    def _go(self, child: Child) -> None:
        assert child.process is not None and child.process.stdin is not None
        child.state = "running"
        with contextlib.suppress(ConnectionError):
            child.process.stdin.write(b"go\n")

    async def _keep(self, child: Child, stopped: asyncio.Task[bool]) -> None:
        """Waits for the child's end and starts it again, for as long as we are not stopping."""
        while True:
            assert child.process is not None
            code = await child.process.wait()
            if stopped.done():
                return
            delay = self._note_end(child, code)
            self._kill_group(child)  # whatever it left behind
            await asyncio.wait({stopped}, timeout=delay)
            if stopped.done():
                return
            await self._spawn(child, self._on_line)
            if stopped.done():  # _stop_all may have looked at this child before it was there again
                await self._end(child, signal.SIGTERM)
                return
            self._go(child)
            self._publish()

    def _note_end(self, child: Child, code: int) -> float:
        """Counts an end nobody asked for; returns the seconds to wait before the next start."""
        lived = time.time() - child.started_at
        child.last_exit = _how(code)
        child.restarts += 1
        child.short_lives = 0 if lived > HEALTHY_AFTER_S else child.short_lives + 1
        delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(child.short_lives, 20)) if child.short_lives else 0.0
        child.state = "down"
        self._publish()
        log.warning(
            "%s ended (%s) after %.1f s; starting it again in %.2g s", child.name, child.last_exit, lived, delay,
            extra={"event.action": "process_restarted", "process.name": child.name},
        )  # fmt: skip
        return delay

    async def _announce_ready(self, begun: float) -> None:
        waiting = set(self._children)
        slow = False
        while waiting:
            for name in sorted(waiting):
                if await self._is_ready(name):
                    waiting.discard(name)
            if time.monotonic() - begun > READY_TIMEOUT_S and waiting and not slow:
                slow = True
                log.warning("not ready after %g s: %s", READY_TIMEOUT_S, ", ".join(sorted(waiting)))
            await asyncio.sleep(0.02 if not slow else 1)
        self._ready_s = time.monotonic() - begun
        self._publish()
        self._on_ready(self._ready_s)

    async def _stop_all(self) -> None:
        for name in self._stop_order:
            child = self._children[name]
            child.state = "stopping"
            self._publish()
            await self._end(child, signal.SIGTERM)

    async def _end(self, child: Child, number: signal.Signals) -> None:
        """Signals the child and waits for its end; SIGKILL to its whole group when it takes too long."""
        if child.process is None:
            return
        if child.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(number)
            try:
                await asyncio.wait_for(child.process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                log.error("%s did not stop within %g s: killed", child.name, STOP_TIMEOUT_S)
        self._kill_group(child)
        await child.process.wait()
        await asyncio.gather(*child.readers)

    def _kill_group(self, child: Child) -> None:
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)

    def _publish(self) -> None:
        """Puts pids and restarts where `tocsin status` reads them."""
        running.publish(
            self._run_dir,
            {
                "pid": os.getpid(),
                "started_at": self._begun,
                "ready_s": self._ready_s,
                "processes": {name: child.public() for name, child in self._children.items()},
            },
        )


def write_line(line: str) -> None:
    """To stderr. A reader of our log that went away must not block the children behind their pipes."""
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit {code}"
