from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forwarder.position import Place, Position


class PositionMachine(RuleBasedStateMachine):
    """A sink, a reader and a spool that drops, in any order: each offset is taken or lost, not both, not neither."""

    def __init__(self) -> None:
        super().__init__()
        self.position = Position(0)
        self.end = 0
        self.flying: tuple[int, range] | None = None
        self.fate: dict[int, str] = {}
        self.stale: Place | None = None

    @rule(n=st.integers(1, 9))
    def append(self, n: int) -> None:
        self.end += n

    @rule()
    def look(self) -> None:
        self.stale = self.position.place()

    @precondition(lambda self: self.flying is None)
    @rule(n=st.integers(1, 9))
    def claim(self, n: int) -> None:
        place = self.position.place()
        end = min(place.offset + n, self.end)
        if end > place.offset:
            assert self.position.claim(place, end)
            self.flying = (place.generation, range(place.offset, end))

    @precondition(lambda self: self.flying is None and self.stale not in (None, self.position.place()))
    @rule(n=st.integers(1, 9))
    def claim_stale(self, n: int) -> None:
        assert self.stale is not None
        assert not self.position.claim(self.stale, self.stale.offset + n)
        assert not self.position.skip(self.end + 1, self.stale)

    @precondition(lambda self: self.flying is not None)
    @rule()
    def taken(self) -> None:
        assert self.flying is not None
        generation, offsets = self.flying
        self.position.taken(generation)
        if generation == self.position.generation:
            self.fate |= dict.fromkeys(offsets, "taken")
        self.flying = None

    @precondition(lambda self: self.flying is not None)
    @rule()
    def given_up(self) -> None:
        """Only a rewind makes a lane give up a batch."""
        assert self.flying is not None
        if self.flying[0] != self.position.generation:
            self.flying = None

    @precondition(lambda self: self.flying is not None)
    @rule()
    def again(self) -> None:
        """The lane failed: the batch is read anew. What was dropped behind it is found to be missing anew."""
        self.position.again()
        self.flying = None
        self.fate = {offset: fate for offset, fate in self.fate.items() if offset < self.position.cursor}

    @rule(n=st.integers(1, 9))
    def drop(self, n: int) -> None:
        lost = self.position.skip(min(self.position.place().offset + n, self.end))
        for offset in lost:
            assert offset not in self.fate
            self.fate[offset] = "lost"

    @rule(to=st.integers(0, 60))
    def rewind(self, to: int) -> None:
        before = self.position.cursor
        assert self.position.back(to) == min(to, before)
        if to < before:
            self.fate = {offset: fate for offset, fate in self.fate.items() if offset < to}

    @invariant()
    def all_below_the_cursor_is_accounted_for(self) -> None:
        assert sorted(o for o in self.fate if o < self.position.cursor) == list(range(self.position.cursor))

    @invariant()
    def nothing_runs_ahead(self) -> None:
        assert self.position.cursor <= self.position.place().offset <= self.end


TestPosition = PositionMachine.TestCase
