"""Where this kernel keeps its struct fields, read from its BTF through libbpf. Owns offsets, not their use."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path

from tocsin.errors import TocsinError

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_LIBRARY = "libbpf.so.1"
_KIND_STRUCT = 4
_TYPE = struct.Struct("=III")
"""btf_type: name, info, size; and btf_member: name, type, offset in bits. Three words each."""


class Btf:
    """The type information of one kernel. Loading takes about 10 ms; keep it while asking, then drop it."""

    def __init__(self, path: Path = VMLINUX) -> None:
        """Raises TocsinError when there is no BTF at `path` or no libbpf to read it with."""
        self._lib = _library()
        if not path.exists():
            raise TocsinError(
                f"this kernel has no BTF ({path} is missing), so the sensor cannot know its structs: "
                "run a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 12, Ubuntu 22.04 and later have it)"
            )
        self._btf = self._lib.btf__parse(str(path).encode(), None)
        if not self._btf:
            raise TocsinError(f"{path} cannot be read as BTF (libbpf: errno {ctypes.get_errno()})")
        self._lib_free = self._lib.btf__free

    def __del__(self) -> None:
        if getattr(self, "_btf", None):
            self._lib_free(self._btf)

    def offset(self, struct_name: str, *fields: str) -> int:
        """Offset in bytes of a field, also inside unnamed unions. `fields` are names it had over time, newest first.

        Raises TocsinError naming what is missing.
        """
        type_id = self._lib.btf__find_by_name_kind(self._btf, struct_name.encode(), _KIND_STRUCT)
        if type_id < 0:
            raise TocsinError(f"this kernel's BTF has no struct {struct_name}")
        for field in fields:
            found = self._find(type_id, field, 0)
            if found is not None:
                return found
        raise TocsinError(f"this kernel's BTF has no {struct_name}.{fields[0]}")

    def _find(self, type_id: int, field: str, base: int) -> int | None:
        for name, member_type, offset in self._members(type_id):
            if name == field:
                return base + offset
            if not name:
                inner = self._find(member_type, field, base + offset)
                if inner is not None:
                    return inner
        return None

    def _members(self, type_id: int) -> Iterator[tuple[str, int, int]]:
        address = self._lib.btf__type_by_id(self._btf, type_id)
        _, info, _ = _TYPE.unpack(ctypes.string_at(address, _TYPE.size))
        bitfields = info >> 31
        body = ctypes.string_at(address + _TYPE.size, _TYPE.size * (info & 0xFFFF))
        for name, member_type, bits in _TYPE.iter_unpack(body):
            text = self._lib.btf__name_by_offset(self._btf, name)
            yield text.decode(), member_type, (bits & 0xFFFFFF if bitfields else bits) // 8


def _library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as e:
        raise TocsinError(f"{_LIBRARY} is missing: apt-get install libbpf1") from e
    lib.btf__parse.restype = ctypes.c_void_p
    lib.btf__parse.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    lib.btf__free.argtypes = [ctypes.c_void_p]
    lib.btf__free.restype = None
    lib.btf__find_by_name_kind.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
    lib.btf__type_by_id.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.btf__type_by_id.restype = ctypes.c_void_p
    lib.btf__name_by_offset.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.btf__name_by_offset.restype = ctypes.c_char_p
    return lib
