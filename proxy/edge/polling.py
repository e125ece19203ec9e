"""Polling: a worker's memory of what is in the ledger's database, kept current by asking again and again.

Each poll has a thread of its own, so that one that hangs takes none from others. While the database is away, what is
known stays; that it is away is said once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

POLL_S = 0.4
"""A change is in force within a second: one interval, one query and room to spare."""
READ_S = 2.0
"""How long one query may take."""

Found = TypeVar("Found")

log = logging.getLogger(__name__)


class Poller:
    """Runs `step` at once and then every `poll_s`, whatever it raises. `what` names it in the log."""

    def __init__(self, what: str, step: Callable[[], Awaitable[None]], *, poll_s: float) -> None:
        self._what = what
        self._step = step
        self._poll_s = poll_s
        self._thread = ThreadPoolExecutor(1, what)
        self._reachable = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Does not fail when the database is away; it is then asked again and again."""
        await self._poll()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ends polling. A query that hangs in its thread is left behind."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def ask(self, read: Callable[..., Found], *arguments: object) -> Found:
        """Runs a query in the thread. Raises what it raises, and TimeoutError."""
        # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the result.
        async with asyncio.timeout(READ_S):
            return await asyncio.get_running_loop().run_in_executor(self._thread, read, *arguments)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self._poll()

    async def _poll(self) -> None:
        try:
            await self._step()
            self._reachable = True
        except Exception as error:
            # Whatever the database's driver raises: what is known stays.
            if self._reachable:
                log.warning("%s cannot be read, known ones go on: %s", self._what, type(error).__name__)
            self._reachable = False
