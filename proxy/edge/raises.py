"""A worker's memory of raises: polled, as keys are, so that one counts within a second of being given.

While the database is away the raises that are known go on counting until they end by themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..core.budgets import Raises
from ..core.raises import GivenRaise, by_counter

POLL_S = 0.4
"""A raise counts within a second: one interval, one query and room to spare."""
READ_S = 2.0

log = logging.getLogger(__name__)


class RaiseFollower:
    """`current` is what `Budget.limit_for` wants. `read(now_ms)` gives the raises that still count; it blocks, and runs
    in a thread of the follower's own."""

    def __init__(
        self,
        read: Callable[[int], Sequence[GivenRaise]],
        *,
        clock_ms: Callable[[], int],
        poll_s: float = POLL_S,
    ) -> None:
        self._read = read
        self._clock_ms = clock_ms
        self._poll_s = poll_s
        self._thread = ThreadPoolExecutor(1, "raises")
        self._reachable = True
        self._poller: asyncio.Task[None] | None = None
        self.current: Raises = {}

    async def start(self) -> None:
        """Begins to follow. Does not fail when the database is away; it is then asked again and again."""
        await self._poll()
        self._poller = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ends polling. A query that hangs in its thread is left behind."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def for_(self, budget: str, values: tuple[str, ...], now_ms: int) -> int:
        """What all raises together add to the limit of one counter."""
        return sum(more.by for more in self.current.get((budget, values), ()) if now_ms < more.until_ms)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self._poll()

    async def _poll(self) -> None:
        try:
            async with asyncio.timeout(READ_S):
                loop = asyncio.get_running_loop()
                self.current = by_counter(await loop.run_in_executor(self._thread, self._read, self._clock_ms()))
            self._reachable = True
        except Exception as error:
            # Whatever the database's driver raises: the raises that are known stay.
            if self._reachable:
                log.warning("raises of budgets cannot be read, known ones go on: %s", type(error).__name__)
            self._reachable = False
