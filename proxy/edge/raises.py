"""A worker's memory of raises: polled, as keys are, so that one counts within a second of being given. Outcomes are
raises of the rules of `unproven` (`core/proven.py`); they are asked for where the policy has such rules.

While the database is away the raises that are known go on counting until they end by themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..core.budgets import Budget, Raises
from ..core.proven import ProvenTask, ProvenTasks, reach_ms
from ..core.raises import GivenRaise, by_counter

POLL_S = 0.4
"""A raise counts within a second: one interval, one query and room to spare."""
READ_S = 2.0
OVERLAP_MS = 60_000
"""Changes of the last minute are read again: they are dated by the clocks of several hosts, and committed later."""

log = logging.getLogger(__name__)


class RaiseFollower:
    """`current` is what `Budget.limit_for` wants. `read(now_ms)` gives the raises that still count; it blocks, and runs
    in a thread of the follower's own, as does `proven(changed_ms, landed_ms)`: the outcomes that changed since, and
    landed after. `unproven` gives the rules that these are for."""

    def __init__(
        self,
        read: Callable[[int], Sequence[GivenRaise]],
        *,
        clock_ms: Callable[[], int],
        poll_s: float = POLL_S,
        proven: Callable[[int, int], Sequence[ProvenTask]] = lambda changed_ms, landed_ms: (),
        unproven: Callable[[], Sequence[Budget]] = tuple,
    ) -> None:
        self._read = read
        self._clock_ms = clock_ms
        self._proven = proven
        self._unproven = unproven
        self._tasks = ProvenTasks()
        self._rules: Sequence[Budget] = ()
        self._given: Sequence[GivenRaise] = ()
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
                await loop.run_in_executor(self._thread, self._look, self._unproven(), self._clock_ms())
            self._reachable = True
        except Exception as error:
            # Whatever the database's driver raises: the raises that are known stay.
            if self._reachable:
                log.warning("raises of budgets cannot be read, known ones go on: %s", type(error).__name__)
            self._reachable = False

    def _look(self, rules: Sequence[Budget], now_ms: int) -> None:
        """In the follower's thread. Works the raises out anew only where something changed."""
        given = self._read(now_ms)
        new = given != self._given or rules != self._rules
        if rules != self._rules:
            self._tasks = ProvenTasks()  # their windows may reach further back
        if rules:
            landed_ms = reach_ms(rules, now_ms)
            changed_ms = max(0, self._tasks.changed_ms - OVERLAP_MS)
            new = self._tasks.learn(self._proven(changed_ms, landed_ms), landed_ms) or new
        if new:
            self.current = self._tasks.raises(by_counter(given), rules)
        self._given, self._rules = given, rules
