"""One module here = one process, found by its file name. Owns how any of them starts and stops, not what it does.

A process is started in two steps, so that nothing runs when something is wrong: `prepare` reads and checks every input
and raises ConfigError with all problems; only then does the prepared process run. Under a supervisor it says `checked`
on stdout and waits for `go` on stdin; when stdin ends the supervisor is gone, and the process stops as on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import pkgutil
import signal
import sys
import threading
from typing import Protocol, cast

from tocsin import link, privileges
from tocsin.errors import ConfigError, Problem, TocsinError, UsageError
from tocsin.settings import Settings

log = logging.getLogger(__name__)

ORPHAN_GRACE_S = 15.0
"""A process whose supervisor died has this long to stop by itself."""


class Prepared(Protocol):
    """A process whose inputs are all good."""

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop`, then takes no more, flushes and returns."""


class Process(Protocol):
    """What each module in this package offers."""

    def prepare(self, settings: Settings) -> Prepared:
        """Reads and checks all inputs; ConfigError with every problem. Starts nothing."""


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> Process:
    """The process of this name; UsageError names those that exist."""
    if name not in names():
        raise UsageError(f"there is no process {name!r}: there are {', '.join(names())}")
    return cast(Process, importlib.import_module(f"{__name__}.{name}"))


def make_directories(settings: Settings, process: str) -> None:
    """The run directory, the state directory and the process's own in it, all made 0700; ConfigError if not."""
    problems: list[Problem] = []
    for path in (settings.paths.run_dir, settings.paths.state_dir, settings.state(process)):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            problems.append(
                Problem(str(path), 0, f"cannot be made: {e.strerror}; make it, or set paths in the settings")
            )
            continue
        if not os.access(path, os.W_OK | os.X_OK):
            problems.append(Problem(str(path), 0, "is not writable for this user; run as root, or set another path"))
    if problems:
        raise ConfigError(problems)


def start(name: str, settings: Settings, *, supervised: bool, check_only: bool = False) -> None:
    """Prepares the process and runs it until SIGTERM or SIGINT, without root unless it is the sensor.

    Raises TocsinError when it must not start.
    """
    process = load(name)
    os.umask(0o077)  # what a process keeps is command lines and evidence: nobody else's
    make_directories(settings, name)
    if link.in_use(settings.socket(name)):
        raise UsageError(
            f"{settings.socket(name)} is in use: another Tocsin runs here; stop it, or set another run_dir"
        )
    prepared = process.prepare(settings)
    if check_only:
        return
    hindrance = privileges.give_up_root(settings, name)
    if hindrance and not supervised:  # the supervisor says it once for all
        log.warning("%s: must stay root: %s. To mend it: %s", name, *hindrance, extra={"event.action": "root_kept"})
    if supervised:
        _wait_for_go()
    run(prepared, watch_stdin=supervised)


def _wait_for_go() -> None:
    sys.stdout.write("checked\n")
    sys.stdout.flush()
    if os.read(sys.stdin.fileno(), 3) != b"go\n":
        raise UsageError("the supervisor has gone, or did not want this process started")


def run(prepared: Prepared, *, watch_stdin: bool) -> None:
    """The process's event loop (uvloop), from here to its end."""
    import uvloop

    failed = threading.Event()

    def give_up(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit:
            return
        # A process that lost one of its threads is half dead and looks alive: better to end, and be started again.
        failed.set()
        where = args.thread.name if args.thread else "a thread"
        info = (args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
        log.critical("%s failed; stopping", where, exc_info=info, extra={"event.action": "thread_failed"})
        os.kill(os.getpid(), signal.SIGTERM)

    threading.excepthook = give_up
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(prepared, watch_stdin))
    except TocsinError:
        raise
    except Exception:
        log.critical("failed; stopping", exc_info=True, extra={"event.action": "process_failed"})
        failed.set()
    if failed.is_set():
        raise TocsinError("stopped after a failure inside, see the log")


async def _until_stopped(prepared: Prepared, watch_stdin: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if watch_stdin:
        threading.Thread(target=_stop_with_supervisor, name="supervisor-watch", daemon=True).start()
    await prepared.run(stop)


def _stop_with_supervisor() -> None:
    """A pipe rather than PR_SET_PDEATHSIG: it survives a change of user, and a graceful stop can still follow."""
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 64):
            pass
    log.warning("the supervisor has gone; stopping", extra={"event.action": "supervisor_lost"})
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(ORPHAN_GRACE_S)
    os._exit(1)
