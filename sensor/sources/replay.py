"""A recorded capture, read again: the same events, byte for byte, without root and without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sensor import probes
from sensor.assembler import Assembler
from sensor.record import Malformed
from sensor.recording import Reader


def replay(path: Path) -> Iterator[bytes]:
    """The encoded events of a recording, in order. A truncated or foreign file is a ConfigError naming the position;
    the events before the fault come first."""
    with Reader(path) as recording:
        assembler = Assembler(recording.identity, probes.load_all())
        for frame, now_ns in recording:
            try:
                line = assembler.take(frame, now_ns)
            except Malformed:
                continue  # it was malformed when recorded, too; the loss it was counted as comes as its own frame
            if line is not None:
                yield line.data
