"""Records of a container that nobody has named yet. Owns the short wait for its name.

Docker tells of a container before its first process runs, so this is the exception: a container from before a restart
of dockerd, or a telling that is late. Its records wait up to WAIT_NS while Docker is asked, in order; others pass by.
After that, and when Docker cannot answer, events go out with the id alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from sensor.frames import ContainerFact, Frame, fact_of
from sensor.record import container_bytes

WAIT_NS = 50_000_000
MAX_WAITING = 1024
ASK_AGAIN_NS = 10_000_000_000
"""After Docker said that it knows no such container."""
LATE_NS = 200_000_000
"""After no answer came in time: dockerd gives none about a container while it starts it."""
MAX_SETTLED = 4096

_OUTSIDE = bytes(64)


class Waiting:
    """Frames in, the same frames out; those of one container keep their order. `ask` starts a lookup whose answer
    comes as a "container" frame, and is False when none will come."""

    def __init__(self, known: Callable[[str], bool], records: Iterable[str], ask: Callable[[str], bool]) -> None:
        self._known = known
        self._records = frozenset(records)
        self._ask = ask
        self._waiting: dict[bytes, tuple[int, deque[Frame]]] = {}
        self._settled: dict[bytes, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, frame: Frame, now_ns: int) -> Iterable[Frame]:
        """What may go on now that this frame has come."""
        if frame.kind in self._records:
            return self._admit_record(frame, now_ns)
        if frame.kind == "container":
            fact = fact_of(frame)
            assert isinstance(fact, ContainerFact)
            key = fact.id.encode()
            if fact.container is None:
                self._settle(key, now_ns + ASK_AGAIN_NS)
            return [frame, *self._release(key)]
        return (frame,)

    def overdue(self, now_ns: int) -> list[Frame]:
        """What has waited long enough."""
        late = [key for key, (since, _) in self._waiting.items() if now_ns - since >= WAIT_NS]
        return [frame for key in late for frame in self._give_up(key, now_ns)]

    def _admit_record(self, frame: Frame, now_ns: int) -> Iterable[Frame]:
        key = container_bytes(frame.data)
        held = self._waiting.get(key)
        if held is not None:
            held[1].append(frame)
        elif not self._worth_waiting(key, now_ns):
            return (frame,)
        else:
            self._waiting[key] = (now_ns, deque((frame,)))
        self._count += 1
        return self._give_up(next(iter(self._waiting)), now_ns) if self._count > MAX_WAITING else ()

    def _worth_waiting(self, key: bytes, now_ns: int) -> bool:
        container_id = key.decode("latin-1")
        if key == _OUTSIDE or self._known(container_id) or self._settled.get(key, 0) > now_ns:
            return False
        if self._ask(container_id):
            return True
        self._settle(key, now_ns + LATE_NS)
        return False

    def _settle(self, key: bytes, until_ns: int) -> None:
        """Not to be asked for again before then."""
        self._settled.pop(key, None)
        self._settled[key] = until_ns
        if len(self._settled) > MAX_SETTLED:
            del self._settled[next(iter(self._settled))]

    def _give_up(self, key: bytes, now_ns: int) -> Iterable[Frame]:
        self._settle(key, now_ns + LATE_NS)
        return self._release(key)

    def _release(self, key: bytes) -> Iterable[Frame]:
        _, frames = self._waiting.pop(key, (0, deque[Frame]()))
        self._count -= len(frames)
        return frames
