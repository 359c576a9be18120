"""Images without a registry: a tree of this host's own programs, packed as a tar for `docker import`."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tocsin.errors import TocsinError

_USERS = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
_GROUPS = b"root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\n"
_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "var/lib", "var/log", "var/www")


class Tree:
    """A root file system in the making. Equal content gives equal bytes: no times, no owners but root."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)
        self._have: set[str] = set()
        for name in _FOLDERS:
            self.folder(name)
        self.file("etc/passwd", _USERS)
        self.file("etc/group", _GROUPS)

    def folder(self, name: str) -> None:
        mode = 0o1777 if name == "tmp" else 0o755
        self._add(name, tarfile.DIRTYPE, mode)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self._add(name, tarfile.REGTYPE, mode, data=data)

    def link(self, name: str, target: str) -> None:
        self._add(name, tarfile.SYMTYPE, 0o777, target=target)

    def packed(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()

    def _add(self, name: str, kind: bytes, mode: int, *, data: bytes = b"", target: str = "") -> None:
        name = name.strip("/")
        if name in self._have:
            return
        for parent in reversed(Path(name).parents):
            if parent != Path(".") and str(parent) not in self._have:
                self.folder(str(parent))
        self._have.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname = kind, mode, len(data), target
        self._tar.addfile(info, io.BytesIO(data))


def busybox(files: Mapping[str, bytes] | None = None, programs: tuple[str, ...] = ()) -> bytes:
    """The tar of a tree with busybox and all its applets, `programs` of this host with their libraries, and `files`.

    Each program keeps its path; a file that is a script or a program may be run.
    """
    tree = Tree()
    tree.file("bin/busybox", static_busybox().read_bytes(), 0o755)
    for applet in _applets():
        tree.link(f"bin/{applet}", "/bin/busybox")
    for program in programs:
        _with_libraries(tree, program)
    for name, data in (files or {}).items():
        tree.file(name, data, 0o755 if data.startswith((b"#!", b"\x7fELF")) else 0o644)
    return tree.packed()


def static_busybox() -> Path:
    """This host's. A copy under another name is that applet as a file of its own, as in images with real programs."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if Path(path).exists() and "not a dynamic executable" in _libraries_of(path):
            return Path(path)
    raise TocsinError("the lab's containers need a static busybox; install it with: apt-get install busybox-static")


def _applets() -> list[str]:
    listed = subprocess.run([str(static_busybox()), "--list"], capture_output=True, text=True, check=True)
    return sorted(name for name in listed.stdout.split() if name != "busybox")


def _with_libraries(tree: Tree, program: str) -> None:
    path = shutil.which(program)
    if path is None:
        raise TocsinError(f"{program} is not installed on this host; ./deploy/test installs it")
    tree.file(path, Path(path).resolve().read_bytes(), 0o755)
    for library in sorted(set(re.findall(r"(/\S+) \(0x", _libraries_of(path)))):
        tree.file(library, Path(library).resolve().read_bytes(), 0o755)


def _libraries_of(path: str) -> str:
    done = subprocess.run(["ldd", path], capture_output=True, text=True)
    return done.stdout + done.stderr
