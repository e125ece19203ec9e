"""Closing days: the active bookkeeper sums up days that are over, so that reports over months read days, not hours."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from ..ledger.errors import LedgerUnavailable
from ..store.lease import Lease

LOOK_S = 60.0
"""How often. A report before a day is closed is as right, and a little slower."""

log = logging.getLogger("callmeter.bookkeeper")


async def close_days_while_active(
    lease: Lease,
    close: Callable[[int], Awaitable[int]],
    clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
) -> None:
    """`close` is called with the time until it finds no day any more; then again after a while. For ever."""
    while True:
        if lease.held:
            try:
                while lease.held and await close(clock_ms()):
                    await asyncio.sleep(0)  # records that came meanwhile go first
            except LedgerUnavailable as away:
                log.debug("%s", away)
        await asyncio.sleep(LOOK_S)
