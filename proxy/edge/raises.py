"""A worker's memory of raises: polled, as keys are, so that one counts within a second of being given. Outcomes are
raises of the rules of `unproven` (`core/proven.py`); they are asked for where the policy has such rules.

While the database is away the raises that are known go on counting until they end by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core.budgets import Budget, Raises
from ..core.proven import ProvenTask, ProvenTasks, reach_ms
from ..core.raises import GivenRaise, by_counter
from .polling import POLL_S, Poller

OVERLAP_MS = 60_000
"""Changes of the last minute are read again: they are dated by the clocks of several hosts, and committed later."""


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
        self._poller = Poller("raises of budgets", self._poll, poll_s=poll_s)
        self.current: Raises = {}

    async def start(self) -> None:
        """Begins to follow. Does not fail when the database is away."""
        await self._poller.start()

    async def close(self) -> None:
        await self._poller.close()

    async def _poll(self) -> None:
        await self._poller.ask(self._look, self._unproven(), self._clock_ms())

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
