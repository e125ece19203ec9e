"""StoreClock: what the clock of the store says, learned from its replies. Windows are those of that clock."""

from __future__ import annotations

from collections.abc import Callable


class StoreClock:
    """`clock_ms` gives this machine's ms since the epoch."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self.offset_ms = 0
        """How far the store is ahead of us, as far as we know."""

    def now_ms(self) -> int:
        return self._clock_ms() + self.offset_ms

    def learn(self, told_ms: int, *, sent_ms: int) -> None:
        """The store said `told_ms` in a reply to what we sent at `sent_ms` by our own clock, which came just now. The
        offset moves only where it is proven wrong, and no further than that, so that a slow reply does not shake it."""
        earliest_ms, latest_ms = told_ms - self._clock_ms(), told_ms - sent_ms
        self.offset_ms = min(max(self.offset_ms, earliest_ms), latest_ms)
