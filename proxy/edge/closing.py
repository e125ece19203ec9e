"""Closing: steps 8 and 9 of the walk. What a call came to, and its settlement, which no cancellation leaves half done.

A call is completed once, with what was read of its answer, and then settled for as long as it takes: in front of the
agent where it still waits, else behind it. The process waits for that work before it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from ..core import settlement
from ..core.estimate import Estimator
from ..core.prices import Prices
from ..core.record import Record, Result
from ..store.calls import CallStore
from ..telemetry.logs import log_call
from ..wire.reading import Reading
from .flight import Flight
from .folding import RefusalFolder
from .holding import Holder
from .lending import Lending
from .retrieval import Retrievals

log = logging.getLogger("callmeter.edge")


class Closing:
    """Completes and settles the calls of one process."""

    def __init__(
        self,
        *,
        store: CallStore,
        prices: Callable[[], Prices],
        estimator: Estimator,
        holder: Holder,
        retrievals: Retrievals,
        lending: Lending,
    ) -> None:
        self._store = store
        self._prices = prices
        self._estimator = estimator
        self._holder = holder
        self._retrievals = retrievals
        self._lending = lending
        self._folder = RefusalFolder(self.write)
        self._background: set[asyncio.Task[None]] = set()

    def complete(self, flight: Flight, *, result: Result, cut: bool) -> Reading:
        """8  What it came to, put into the record."""
        record = flight.record
        assert flight.upstream is not None
        assert flight.reading is None, "a call is completed once"
        reading = flight.reading = flight.meter.close() if flight.meter is not None else Reading()
        now_s = monotonic()
        settlement.settle(
            record,
            call=flight.call,
            told=reading,
            prices=self._prices(),
            estimator=self._estimator,
            billing=flight.upstream.billing,
            result=result,
            sent=flight.sent,
            answered=flight.answered,
            cut=cut,
            answer_s=now_s - flight.sent_s,
        )
        flight.clock_out(now_s)
        if flight.plan is not None:
            self._holder.settled(record, flight.plan, answer_s=now_s - flight.sent_s, cut=cut)
        if flight.capture is not None:
            self._lending.keep(flight)
        return reading

    async def settle(self, flight: Flight, reading: Reading) -> None:
        """9  Into the store: counters and record in one script."""
        flight.settling = True
        if flight.exchange is not None:
            flight.exchange.close()
        log_call(flight.record)
        try:
            await self._conclude(flight, reading)
        except asyncio.CancelledError:
            self.in_background(self._conclude(flight, reading))
            raise

    async def _conclude(self, flight: Flight, reading: Reading) -> None:
        if reading.later is not None:  # before its hold ends, so that nobody can take in between what it will cost
            await self._retrievals.wait_for(flight.record, reading.later, flight.takes)
        await self._store.settle(flight.record, whole=reading.complete or not flight.call.stream)
        if flight.call.retrieves or reading.outcome_of or reading.items or reading.files:
            self.in_background(self._retrievals.follow(flight.record, flight.call, reading))

    async def settle_left(self, flight: Flight, result: Result) -> None:
        """Completes and settles a call whose agent went away."""
        cut = flight.exchange is not None and not flight.exchange.at_end
        await self.settle(flight, self.complete(flight, result=result, cut=cut))

    async def forget(self, record: Record) -> None:
        """The caller of a running call is gone: a repeat of it is no duplicate."""
        await self._store.forget(record.call_id, record.org)

    async def refused(self, record: Record) -> None:
        """Records a refusal, or counts it into the one before it that was the same."""
        try:
            await self._folder.add(record)
        except asyncio.CancelledError:
            self.in_background(self._folder.add(record))
            raise

    async def write(self, record: Record) -> None:
        """Records a call that holds nothing."""
        log_call(record)
        await self._store.settle(record)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that no agent waits for and no cancellation reaches; the process waits for it before it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._forget_background)

    def _forget_background(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("work behind a call failed", exc_info=task.exception())

    @property
    def busy(self) -> int:
        """Pieces of work that go on behind agents that left."""
        return len(self._background)

    async def close(self, within_s: float) -> None:
        """Waits for what runs behind agents that left, settles what takes too long with what was seen of it, then
        writes the refusals that were folded."""
        await self._until_idle(within_s)
        for task in list(self._background):
            task.cancel()
        await self._until_idle(within_s)  # each may have left a settle behind it
        await self._folder.close()

    async def _until_idle(self, within_s: float) -> None:
        deadline_s = monotonic() + within_s
        while self._background and monotonic() < deadline_s:
            await asyncio.wait(list(self._background), timeout=deadline_s - monotonic())
