"""What this host can and cannot do for Tocsin, each with the command that mends it. Only looks; changes nothing."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tocsin import link, privileges, running
from tocsin.errors import RetryLater, TocsinError
from tocsin.settings import Settings

State = Literal["ok", "warn", "fail"]

MIN_FREE_MEMORY_MIB = 512
_STA_UNSYNC = 0x0040  # <sys/timex.h>: the kernel clock is not disciplined


class Check(NamedTuple):
    """One condition. `warn`: Tocsin runs, with less than it could; `fail`: something of it does not run."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    """The command, or the words, that mend it; empty when all is well."""


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, as it is done; each guarded, so one that breaks is itself a finding and hides no other."""
    for look in (_sensor, _docker, _rights, _directories, _disk, _memory, _clock, _sockets, _inputs, _store):
        yield from _guarded(look, settings)


def _guarded(look: Callable[[Settings], Iterator[Check]], settings: Settings) -> Iterator[Check]:
    try:
        yield from look(settings)
    except TocsinError as e:
        yield Check(look.__name__.strip("_"), "fail", str(e), "mend what is named there")
    except Exception as e:
        yield Check(look.__name__.strip("_"), "fail", f"could not be checked: {type(e).__name__}: {e}")


def _sensor(_: Settings) -> Iterator[Check]:
    from sensor.checks import capabilities

    for found in capabilities():
        state: State = "ok" if found.ok else "fail" if found.needed else "warn"
        yield Check(found.name, state, found.detail, "" if found.ok else found.remedy)


def _docker(settings: Settings) -> Iterator[Check]:
    for name, url in {"docker": settings.sensor.docker, "docker (playbooks)": settings.playbooks.docker}.items():
        if name == "docker" or url != settings.sensor.docker:
            yield from _daemon(name, url)


def _daemon(name: str, url: str) -> Iterator[Check]:
    start = "systemctl start docker (or: apt-get install docker.io)"
    if not url.startswith("unix://"):
        yield Check(name, "warn", f"{url}: only Unix sockets are looked at here", "")
        return
    client = link.Client(Path(url.removeprefix("unix://")), timeout_s=5)
    try:
        version, info = client.get("/version").decoded(), client.get("/info").decoded()
    except RetryLater as e:
        remedy = "run as root" if isinstance(e.__cause__, PermissionError) else start
        yield Check(name, "fail", f"{e}; no container names, and no playbook can act", remedy)
        return
    finally:
        client.close()
    cgroup = f"cgroup v{info.get('CgroupVersion', '1')} ({info.get('CgroupDriver', '?')})"
    count = f"{info.get('ContainersRunning', 0)} containers running"
    detail = f"{version.get('Version')}, API {version.get('ApiVersion')}, {cgroup}, {count}"
    old = tuple(int(x) for x in str(version.get("ApiVersion", "0")).split(".")) < (1, 41)
    yield Check(name, "warn" if old else "ok", detail, "update Docker to 20.10 or newer" if old else "")


def _rights(settings: Settings) -> Iterator[Check]:
    names = ", ".join(privileges.UNPRIVILEGED)
    if os.geteuid() != 0:
        yield Check("least privilege", "warn", "only root can look whether processes can give it up", "run as root")
        return
    hindrances = privileges.hindrances(settings)
    for (reason, remedy), processes in hindrances.items():
        yield Check("least privilege", "warn", f"{', '.join(processes)}: must stay root: {reason}", remedy)
    if not hindrances:
        yield Check("least privilege", "ok", f"{names} give up root for the user {settings.paths.user}")


def _directories(settings: Settings) -> Iterator[Check]:
    for name, path in {"state_dir": settings.paths.state_dir, "run_dir": settings.paths.run_dir}.items():
        there = _nearest(path)
        if not os.access(there, os.W_OK | os.X_OK):
            yield Check(name, "fail", f"{there} is not writable for this user", f"run as root, or set [paths] {name}")
        elif path.exists() and not privileges.is_private(path, settings):
            mode = path.stat().st_mode & 0o777
            yield Check(name, "warn", f"{path} is open to others (mode {mode:04o})", f"chmod 0700 {path}")
        else:
            yield Check(name, "ok", f"{path}{'' if path.exists() else ' (will be made)'}")


def _nearest(path: Path) -> Path:
    """The path itself or the nearest parent that exists."""
    return next((p for p in (path, *path.parents) if os.path.exists(p)), Path("/"))


def _disk(settings: Settings) -> Iterator[Check]:
    free = shutil.disk_usage(_nearest(settings.paths.state_dir)).free >> 20
    store = settings.store.retain_mib if settings.store.url.startswith("sqlite") else 0
    wanted = settings.forwarder.spool_mib + settings.playbooks.evidence_mib + store
    used = _size_mib(settings.paths.state_dir)
    detail = f"{free} MiB free; spool, evidence and store may grow to {wanted} MiB, {used} MiB of it are used"
    if free + used >= wanted:
        yield Check("disk", "ok", detail)
    else:
        remedy = "free some space, or lower forwarder.spool_mib, playbooks.evidence_mib, store.retain_mib"
        yield Check("disk", "warn" if free > 256 else "fail", detail, remedy)


def _size_mib(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # it went away meanwhile
            continue
    return total >> 20


def _memory(_: Settings) -> Iterator[Check]:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) >> 10
    enough = free >= MIN_FREE_MEMORY_MIB
    yield Check("memory", "ok" if enough else "warn", f"{free} MiB available", "" if enough else "free some memory")


def _clock(_: Settings) -> Iterator[Check]:
    """Events carry the wall clock: alerts across hosts are only as good as it is."""
    timex = (ctypes.c_char * 512)()
    ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    status = ctypes.c_int.from_buffer(timex, 40).value  # after modes and four longs, padded
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if status & _STA_UNSYNC:
        yield Check("clock", "warn", f"{now}; not synchronised", "apt-get install systemd-timesyncd (or chrony)")
    else:
        yield Check("clock", "ok", f"{now}; synchronised")


def _sockets(settings: Settings) -> Iterator[Check]:
    from tocsin import processes

    serving = [name for name in processes.names() if link.in_use(settings.socket(name))]
    supervisor = running.read_state(settings.paths.run_dir)
    if supervisor is not None:
        users = {name: running.user_of(child["pid"]) for name, child in supervisor["processes"].items()}
        answering = ", ".join(f"{name} as {users.get(name) or '?'}" for name in serving)
        yield Check("processes", "ok", f"`tocsin up` runs (pid {supervisor['pid']}); answering: {answering}")
    elif serving:
        remedy = "stop them before `tocsin up`, or set another run_dir"
        yield Check("processes", "warn", f"running without a supervisor: {', '.join(serving)}", remedy)
    else:
        yield Check("processes", "ok", "none runs; the sockets are free")


def _inputs(settings: Settings) -> Iterator[Check]:
    """Rules, playbooks, allow-list and secrets, read as each process would read them."""
    from tocsin import processes

    for name in processes.names():
        if name == "sensor":  # what it needs has been looked at above
            continue
        try:
            processes.load(name).prepare(settings)
        except TocsinError as e:
            for line in str(e).splitlines():
                yield Check(f"{name} inputs", "fail", line, "mend the file named there")
        else:
            yield Check(f"{name} inputs", "ok", "all files read and checked")


def _store(settings: Settings) -> Iterator[Check]:
    from tocsin.storage import is_remote, open_store

    store = open_store(settings)
    try:
        found = store.status()
    finally:
        store.close()
    if not found.reachable:
        if is_remote(settings):
            remedy = "start it, or set [store] url; until then events wait in the spool"
            yield Check("store", "warn", f"{found.place}: {found.problem}", remedy)
        else:
            yield Check("store", "fail", f"{found.place}: {found.problem}", "let [store] url name a usable file")
        return
    missing = [name for name, there in found.features.items() if not there]
    without = f"; without {', '.join(missing)}" if missing else ""
    detail = f"{found.kind} {found.place}: {found.documents} documents, {found.size_bytes >> 20} MiB, {found.version}"
    yield Check("store", "ok", detail + without)


def all_settings(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every setting: {"key", "value", "default", "variable", "description"}. Of secrets only the place."""
    from tocsin.settings import PREFIX

    for section, info in type(settings).model_fields.items():
        current = getattr(settings, section)
        if not hasattr(type(current), "model_fields"):
            for name, path in current.items():
                yield _setting(f"{section}.{name}", path, None, "", info.description)
            continue
        for key, field in type(current).model_fields.items():
            variable = f"{PREFIX}{section}_{key}".upper()
            yield _setting(f"{section}.{key}", getattr(current, key), field.default, variable, field.description)


def _setting(key: str, value: Any, default: Any, variable: str, description: str | None) -> dict[str, Any]:
    return {
        "key": key, "value": _plain(value), "default": _plain(default), "variable": variable,
        "description": description or "",
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
