"""Claiming: answers the claims of sessions that workers left in the store. Only the active bookkeeper does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..ledger.claims import ClaimBook, ClaimRefused
from ..ledger.errors import LedgerUnavailable
from ..store.claims import Answered, Asked, answer, waiting
from ..store.client import Client
from ..store.errors import StoreError
from ..store.lease import Lease

LOOK_S = 0.2

log = logging.getLogger("callmeter.bookkeeper")


class Claiming:
    """`write` runs work in the thread that writes the ledger."""

    def __init__(
        self,
        client: Client,
        book: ClaimBook,
        lease: Lease,
        write: Callable[[Callable[[], Any]], Awaitable[Any]],
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._client = client
        self._book = book
        self._lease = lease
        self._write = write
        self._clock_ms = clock_ms

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._lease.held:
                try:
                    await self.look()
                except StoreError as away:
                    log.debug("claims wait: %s", away)

    async def look(self) -> None:
        """Answers all that wait. Raises StoreError."""
        while asked := await waiting(self._client):
            for each in asked:
                await answer(self._client, each, await self._answered(each))

    async def _answered(self, asked: Asked) -> Answered:
        def claim() -> Answered:
            made = self._book.claim(asked.org, asked.user, asked.session, asked.task, self._clock_ms())
            return Answered(status=200, calls=made.calls, cost_nusd=made.cost_nusd, at_ms=made.at_ms)

        try:
            answered: Answered = await self._write(claim)
        except ClaimRefused as refused:
            return Answered(status=refused.status, sentence=str(refused))
        except LedgerUnavailable:
            return Answered(status=503, sentence="the ledger is away; claim again later")
        return answered
