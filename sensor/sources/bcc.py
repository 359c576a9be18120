"""The kernel as a source: compiles bpf/, attaches the probes, brings their records. The only file that knows BCC."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sensor import procfs, record
from sensor.btf import Btf
from sensor.frames import Frame, FrameQueue
from sensor.probes import SOURCES, source
from sensor.processes import TICK_NS
from sensor.sighting import Probe
from tocsin.errors import TocsinError

log = logging.getLogger(__name__)

POLL_MS = 200
PAGE = 4096


class BccSource:
    """`start` attaches and begins to put frames into the queue; `stop` detaches and brings what is left."""

    def __init__(
        self, probes: Mapping[str, Probe], queue: FrameQueue, *, scope_all: bool, ring_bytes: int,
        failed: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self.attached: list[str] = []
        self.degraded: list[str] = []
        """One sentence for each probe that is not attached."""
        self._probes = probes
        self._queue = queue
        self._scope_all = scope_all
        self._pages = 1 << (max(1, ring_bytes // PAGE) - 1).bit_length()  # the kernel takes powers of two only
        self._failed = failed
        self._names: dict[int, str] = {}
        self._bpf: Any = None
        self._lock = threading.Lock()
        self._last_losses: Mapping[str, int] = {}
        self._received_total = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sensor-bcc", daemon=True)

    def start(self, excluded: Iterable[int], strict: bool) -> None:
        """Raises TocsinError when nothing can be captured at all or, with `strict`, when any probe cannot."""
        bcc = load_bcc()
        _mount("tracefs", Path("/sys/kernel/tracing"))
        flags, usable = self._flags()
        self._names = {number: name for number, name in enumerate(usable)}
        text = "".join(f'#line 1 "bpf/{path.name}"\n{path.read_text()}' for path in self._files(usable))
        os.environ["BCC_KERNEL_SOURCE"] = str(SOURCES / "headers")
        try:
            self._bpf = bcc.BPF(text=text.encode(), cflags=flags)
        except Exception as e:
            raise TocsinError(f"the probes cannot be compiled and loaded: {e}; are you root? `tocsin doctor`") from e
        _give_memory_back()
        self.exclude(excluded)
        self._bpf[b"records"].open_ring_buffer(self._received)
        for name in usable:
            self._attach(bcc, name)
        if self.degraded and (strict or not self.attached):
            self._close()
            raise TocsinError("; ".join(self.degraded))
        for sentence in self.degraded:
            log.warning(sentence, extra={"event.action": "probe_degraded"})
        self._thread.start()

    def exclude(self, pids: Iterable[int]) -> None:
        """Exactly these processes and their children are not reported from now on."""
        ticks = {pid: tick for pid in pids if (tick := procfs.start_tick(pid)) is not None}
        table = self._bpf[b"excluded"]
        for key in list(table.keys()):
            if key.value not in ticks:
                del table[key]
        for pid, tick in ticks.items():
            table[ctypes.c_uint32(pid)] = ctypes.c_uint64(tick)

    def losses(self) -> Mapping[str, int]:
        """Records without room in the ring, by probe, since the start."""
        with self._lock:
            if self._bpf is None:
                return self._last_losses
            table = self._bpf[b"losses"]
            self._last_losses = {
                name: sum(table[ctypes.c_int(number)]) for number, name in self._names.items()
            }  # fmt: skip
            return self._last_losses

    def stop(self) -> None:
        """Detaches first, so that no record is written any more, then brings those that were."""
        for name in self.attached:
            self._detach(name)
        self._stopping = True
        if self._thread.ident is not None:
            self._thread.join()
        self._drain()
        self.losses()
        self._close()

    def _drain(self) -> None:
        """What is still in the ring, as the pipeline makes room for it."""
        before = -1
        while before != self._received_total and self._queue.wait_for_room(10.0):
            before = self._received_total
            self._bpf.ring_buffer_consume()

    def _flags(self) -> tuple[list[str], list[str]]:
        """Compiler flags, and the probes whose fields this kernel has."""
        btf = Btf()
        flags = [
            f"-I{SOURCES}", f"-DHEADER_SIZE={record.LAYOUT.size}", f"-DSCOPE_ALL={int(self._scope_all)}",
            f"-DRING_PAGES={self._pages}",
            f"-DTICK_NS={TICK_NS}ULL", f"-DHOST_MNT_NS={host_mount_namespace()}",
            *_offsets(btf, record.OFFSETS),
        ]  # fmt: skip
        usable: list[str] = []
        for name, probe in self._probes.items():
            try:
                flags += _offsets(btf, probe.OFFSETS)
            except TocsinError as e:
                self.degraded.append(f"the probe {name} is off: {e}")
                continue
            flags += [f"-DPROBE_{name}={len(usable)}", f"-DSIZE_{name}={probe.LAYOUT.size}"]
            usable.append(name)
        return list(dict.fromkeys(flags)), usable

    def _files(self, usable: Iterable[str]) -> list[Path]:
        return [SOURCES / "common.h", *(source(name) for name in usable)]

    def _attach(self, bcc: ModuleType, name: str) -> None:
        try:
            for hook in self._probes[name].HOOKS:
                at, function = hook.at.encode(), hook.function.encode()
                if hook.kind == "tracepoint":
                    self._bpf.load_func(function, bcc.BPF.TRACEPOINT)
                    self._bpf.attach_tracepoint(tp=at, fn_name=function)
                else:
                    self._bpf.load_func(function, bcc.BPF.RAW_TRACEPOINT)
                    self._bpf.attach_raw_tracepoint(tp=at, fn_name=function)
        except Exception as e:  # BCC raises no narrower type
            self.degraded.append(f"the probe {name} is off: {e}")
        else:
            self.attached.append(name)

    def _detach(self, name: str) -> None:
        for hook in self._probes[name].HOOKS:
            if hook.kind == "tracepoint":
                self._bpf.detach_tracepoint(tp=hook.at.encode())
            else:
                self._bpf.detach_raw_tracepoint(tp=hook.at.encode())

    def _received(self, _context: object, data: int, size: int) -> int:
        """Called by libbpf for every record. Copies and returns: ctypes swallows exceptions raised in here.

        A negative answer ends this poll: there is enough, the rest stays in the ring until the pipeline has room.
        """
        raw = ctypes.string_at(data, size)
        self._received_total += 1
        name = self._names.get(int.from_bytes(raw[4:6], "little"), "unknown")
        return 0 if self._queue.put(Frame(name, raw)) else -1

    def _run(self) -> None:
        try:
            while not self._stopping:
                if self._queue.wait_for_room(1.0):
                    self._bpf.ring_buffer_poll(POLL_MS)
        except Exception as e:
            log.exception("The kernel source failed", extra={"event.action": "source_failed"})
            self._failed(e)

    def _close(self) -> None:
        with self._lock:
            self._bpf.cleanup()
            self._bpf = None


def host_mount_namespace() -> int:
    """Inode of the mount namespace of pid 1, which is the host's; of our own where pid 1 may not be looked at."""
    for process in ("1", "self"):
        try:
            return os.stat(f"/proc/{process}/ns/mnt").st_ino
        except OSError:
            continue
    return 0


def _offsets(btf: Btf, fields: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"-DOFF_{name}_{names[0]}={btf.offset(name, *names)}" for name, *names in fields]


def load_bcc() -> ModuleType:
    """The distribution's BCC; TocsinError when it is missing or another module has its name."""
    try:
        import bcc
    except ImportError as e:
        raise TocsinError(
            "BCC's Python module is missing: apt-get install python3-bpfcc, and make the virtual environment with "
            "/usr/bin/python3 -m venv --system-site-packages (the package `bcc` of the Python index is another thing)"
        ) from e
    if not hasattr(bcc, "BPF"):
        raise TocsinError("the module bcc here is not BCC: pip uninstall bcc; apt-get install python3-bpfcc")
    module: ModuleType = bcc
    return module


def _give_memory_back() -> None:
    """What the compiler has left on the heap: 18 MiB. Only glibc can."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _mount(kind: str, at: Path) -> None:
    """Mounts tracefs where a bare machine lacks it; what cannot be mounted shows when a tracepoint is attached."""
    if not os.path.exists(at / "events") and at.is_dir():
        subprocess.run(["mount", "-t", kind, kind, str(at)], check=False, capture_output=True, timeout=10)
