"""Least privilege: forwarder, correlator and playbooks give up root for the system user of the settings.

Root owns run_dir and state_dir, whose group is the user's. In run_dir the user makes its sockets; the sticky bit keeps
it from replacing what root put there, the set-group bit lets it speak to processes that stayed root. Through state_dir
it may only pass, to the directories of its processes, which are its own. The playbooks keep the group of Docker's
socket, nobody keeps a capability.

A process that could not work without root keeps it, and says why: losing the detection would be worse.
"""

from __future__ import annotations

import ctypes
import grp
import json
import os
import pwd
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tocsin.errors import TocsinError
from tocsin.settings import Settings

UNPRIVILEGED = ("forwarder", "correlator", "playbooks")
"""The sensor is not among them: BPF needs root."""

RUN_DIR_MODE = 0o3770
STATE_DIR_MODE = 0o710

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # <linux/prctl.h>


class Hindrance(NamedTuple):
    """Why a process must stay root, and what mends it: a command, or words."""

    reason: str
    remedy: str


def give_up_root(settings: Settings, process: str) -> Hindrance | None:
    """From here on this process is the user's, for good; or the reason why it stays what it is.

    To be called when all modules are imported and all secrets read, and before threads, sockets or files are made.
    The process's state is handed to the user first. Nothing happens to a process that is not root anyway.
    """
    if os.geteuid() != 0:
        return None
    try:
        _open_directories(settings)
        if process in UNPRIVILEGED:
            account = _able(settings, process)
            _hand_over(settings, process, account)
            account.become()
    except _Hindered as e:
        return e.hindrance if process in UNPRIVILEGED else None
    return None


def hindrances(settings: Settings) -> dict[Hindrance, list[str]]:
    """Each reason for processes to stay root -> those processes. Only looks; empty unless root asks."""
    found: dict[Hindrance, list[str]] = {}
    for process in UNPRIVILEGED if os.geteuid() == 0 else ():
        try:
            _able(settings, process)
        except _Hindered as e:
            found.setdefault(e.hindrance, []).append(process)
    return found


def is_private(path: Path, settings: Settings) -> bool:
    """Whether only its owner, and the user of the settings, can use this directory."""
    info = path.stat()
    try:
        gid = pwd.getpwnam(settings.paths.user).pw_gid
    except KeyError:
        gid = None
    return not info.st_mode & 0o007 and (not info.st_mode & 0o070 or info.st_gid == gid)


def let_in(directory: Path, settings: Settings) -> None:
    """Lets the user, if there is one, pass through a private directory of root's to what lies below."""
    try:
        account = _account(settings, ())
    except _Hindered:
        return
    if os.geteuid() == 0:
        os.chown(directory, 0, account.gid)
        directory.chmod(STATE_DIR_MODE)


class _Hindered(Exception):
    def __init__(self, reason: str, remedy: str) -> None:
        self.hindrance = Hindrance(reason, remedy)
        super().__init__(reason)


@dataclass(frozen=True)
class _Account:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """Besides its own."""

    def become(self) -> None:
        """There is no way back, not even through a set-uid program. Raises when a right is left."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        libc = ctypes.CDLL(None, use_errno=True)
        for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
            if libc.prctl(option, *(ctypes.c_ulong(x) for x in (value, 0, 0, 0))):
                raise OSError(ctypes.get_errno(), "prctl")
        left = re.findall(r"^Cap(?:Prm|Eff|Amb):\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        if any(int(mask, 16) for mask in left):
            raise TocsinError(f"{self.name} would keep capabilities ({', '.join(left)}): refusing to go on")


class _Need(NamedTuple):
    path: Path
    mode: int
    """As for os.access."""
    remedy: str


def _able(settings: Settings, process: str) -> _Account:
    """The account with which the process can do its work. Raises _Hindered."""
    account = _account(settings, _groups(settings) if process == "playbooks" else ())
    _check_directories(settings, account)
    for path in _own(settings, process):
        if path.is_symlink():
            raise _Hindered(f"{path} is a symbolic link", "name the real place in [paths] state_dir")
    _try(account, list(_needs(settings, process)))
    return account


def _check_directories(settings: Settings, account: _Account) -> None:
    """What is open to others may not be Tocsin's own, such as /run itself: that is left as it is."""
    for path in (settings.paths.run_dir, settings.paths.state_dir):
        if path.exists() and not (is_private(path, settings) and path.stat().st_uid in (0, account.uid)):
            raise _Hindered(f"{path} is open to others", f"chown root {path} && chmod 0700 {path}")


def _account(settings: Settings, groups: tuple[int, ...]) -> _Account:
    name = settings.paths.user
    add = f"useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {name}"
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise _Hindered(f"there is no system user {name}", add) from None
    members = {p.pw_name for p in pwd.getpwall() if p.pw_gid == found.pw_gid}
    members.update(*(g.gr_mem for g in grp.getgrall() if g.gr_gid == found.pw_gid))
    if found.pw_uid == 0 or members != {name}:
        raise _Hindered(f"the user {name} shares its group, or is root", "name another one in [paths] user")
    return _Account(name, found.pw_uid, found.pw_gid, groups)


def _groups(settings: Settings) -> tuple[int, ...]:
    """What lets a process write to Docker; while that does not run, the group that it will take by default."""
    if (socket := _docker_socket(settings)) is None:
        return ()
    try:
        gid = socket.stat().st_gid if socket.exists() else grp.getgrnam("docker").gr_gid
    except KeyError:
        raise _Hindered("Docker's group is not known while it does not run", "start Docker, then Tocsin") from None
    if gid == 0:
        raise _Hindered(f"{socket} belongs to the group root", "groupadd --system docker, then restart Docker")
    return (gid,)


def _docker_socket(settings: Settings) -> Path | None:
    kind, _, path = settings.playbooks.docker.partition("://")
    return Path(path) if kind == "unix" else None


def _needs(settings: Settings, process: str) -> Iterator[_Need]:
    """What the user must be able to use as it is. Looked for by root: the user may not even see it."""
    move = f"put Tocsin where {settings.paths.user} can read it, such as /opt/tocsin"
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    yield from (_Need(Path(path), os.R_OK | os.X_OK, move) for path in sys.path if os.path.isdir(path))
    yield from (_Need(Path(path), os.R_OK, move) for path in sorted(filter(None, loaded)) if os.path.isfile(path))
    for path in (settings.paths.run_dir, settings.paths.state_dir):
        parent = _nearest(path.absolute().parent)
        yield _Need(parent, os.X_OK, f"let {settings.paths.user} pass through it, or set other [paths]")
    kind, _, file = settings.store.url.partition(":")
    if process == "forwarder" and kind == "sqlite" and file:
        give = f"chown -R {settings.paths.user}: the store's file and its directory"
        yield _Need(_nearest(Path(file).absolute().parent), os.W_OK | os.X_OK, give)
        yield _Need(_nearest(Path(file).absolute()), os.W_OK, give)
    socket = _docker_socket(settings)
    if process == "playbooks" and socket is not None and socket.exists():
        yield _Need(socket, os.W_OK, "let Docker's group write to it: chmod 0660")


def _nearest(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _try(account: _Account, needs: list[_Need]) -> None:
    """Looks at every need as the user would find it, in a child that has given up root. Raises _Hindered."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            account.become()
            lacking = [n for n, need in enumerate(needs) if not os.access(need.path, need.mode)]
            os.write(writing, json.dumps(lacking[:1]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        raise _Hindered(f"this host does not let root become {account.name}", "grant CAP_SETUID and CAP_SETGID")
    for number in json.loads(answer):
        need = needs[number]
        raise _Hindered(f"{need.path} is closed to the user {account.name}", need.remedy)


def _own(settings: Settings, process: str) -> list[Path]:
    """The process's directories below state_dir."""
    keeps_store = process == "forwarder" and settings.store.url == "sqlite"
    return [settings.state(process), *([settings.state("store")] if keeps_store else [])]


def _open_directories(settings: Settings) -> None:
    """Every process does it, one that stays root too: the user must be able to connect to its socket."""
    account = _account(settings, ())
    _check_directories(settings, account)
    for path, mode in ((settings.paths.run_dir, RUN_DIR_MODE), (settings.paths.state_dir, STATE_DIR_MODE)):
        os.chown(path, 0, account.gid)
        path.chmod(mode)


def _hand_over(settings: Settings, process: str, account: _Account) -> None:
    settings.socket(process).unlink(missing_ok=True)  # left by a killed one that was root: the user could not
    for path in _own(settings, process):
        path.mkdir(mode=0o700, exist_ok=True)
        _give(path, account)


def _give(directory: Path, account: _Account) -> None:
    """All directories and plain files from here on down. Through descriptors, never by a name that could be a link."""
    for _, _, names, above in os.fwalk(directory):
        os.fchown(above, account.uid, account.gid)
        for name in names:
            if os.stat(name, dir_fd=above, follow_symlinks=False).st_uid == account.uid:
                continue
            try:
                entry = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
            except OSError:  # a symbolic link or a socket: none that we made
                continue
            try:
                info = os.fstat(entry)
                if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:  # a second name may be anybody's file
                    os.fchown(entry, account.uid, account.gid)
            finally:
                os.close(entry)
