"""The clock of outcomes: accepts what held long enough. Only the active bookkeeper's runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..ledger.errors import LedgerUnavailable
from ..ledger.outcomes import DUE_MAX, OutcomeBook
from ..store.lease import Lease, LeaseLost

TICK_S = 1.0
TIDY_S = 3_600.0

log = logging.getLogger("callmeter.bookkeeper")


class OutcomeClock:
    """`write` runs work in the thread that writes the ledger; `changed` counts outcomes that came to a state."""

    def __init__(
        self,
        book: OutcomeBook,
        lease: Lease,
        write: Callable[[Callable[[], Any]], Awaitable[Any]],
        changed: Callable[[str, str, int], None],
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._book = book
        self._lease = lease
        self._write = write
        self._changed = changed
        self._clock_ms = clock_ms
        self._tidied_s = time.monotonic()

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(TICK_S)
            if self._lease.held:
                try:
                    await self.tick()
                except (LedgerUnavailable, LeaseLost) as away:
                    log.debug("outcomes wait: %s", away)

    async def tick(self) -> None:
        """Accepts all that is due, and now and then drops what nobody asks for any more. Raises LedgerUnavailable."""
        accepted = DUE_MAX
        while accepted == DUE_MAX:
            changes = await self._write(lambda: self._book.accept_due(self._clock_ms(), self._lease.check))
            for (rule, state), count in changes.items():
                self._changed(rule, state, count)
            accepted = changes.total()
        if time.monotonic() - self._tidied_s > TIDY_S:
            self._tidied_s = time.monotonic()
            await self._write(lambda: self._book.forget_old(self._clock_ms()))
