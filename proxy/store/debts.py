"""Debts: what a worker owes the store, kept until the store has it: in the spool, or in memory where the disk fails."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from . import owed
from .errors import StoreError, StoreRefused, StoreUnavailable
from .owed import Owed
from .spool import Segment, Spool, SpoolFailed

DRAIN_BATCH = 100
"""Spooled lines that are on their way to the store at once: little enough to leave room for running calls."""

UNSAVED_MAX = 20_000
"""Owed to the store while neither it nor the spool takes anything: about 50 MB of memory. Beyond it, the oldest are
dropped with an error in the log: the last resort, after two failures."""

log = logging.getLogger("callmeter.store")


class Debts:
    """`pay` gives the store one item and raises StoreError; `note` is told of errors that may pass."""

    def __init__(
        self,
        spool: Spool,
        *,
        pay: Callable[[Owed], Awaitable[None]],
        note: Callable[[StoreError], None],
        orphans_s: float,
    ) -> None:
        self._spool = spool
        self._pay = pay
        self._note = note
        self._orphans_s = orphans_s
        self._orphans_at_s = 0.0
        self._unsaved: deque[Owed] = deque(maxlen=UNSAVED_MAX)
        self._draining: Segment | None = None
        self.drained = 0

    @property
    def waiting(self) -> int:
        """Lines in the spool, and what waits in memory because the disk took nothing."""
        return self._spool.waiting + len(self._unsaved)

    async def open(self) -> None:
        """Raises SpoolFailed."""
        await self._spool.open()

    async def close(self) -> None:
        """Writes what waits in memory. The spool's files stay."""
        while self._unsaved:
            try:
                await self._spool.append(owed.encode(self._unsaved[0]))
            except SpoolFailed as error:
                log.error("%d record(s) are lost: %s", len(self._unsaved), error)
                break
            self._unsaved.popleft()
        if self._draining is not None:
            await self._spool.leave(self._draining)
        await self._spool.close()

    async def add(self, item: Owed) -> None:
        try:
            await self._spool.append(owed.encode(item))
        except SpoolFailed as error:
            if len(self._unsaved) == UNSAVED_MAX:
                log.error("A record is lost: neither the store nor the spool takes anything. %s", error)
            elif not self._unsaved:
                log.error("Records wait in memory, since the spool cannot be written: %s", error)
            self._unsaved.append(item)

    async def drain(self) -> None:
        """Gives the store what it is owed: from memory, from our files, then from files of processes that are dead.
        Raises StoreError where some of it is left."""
        while self._unsaved:
            await self._pay(self._unsaved[0])
            self._unsaved.popleft()
            self.drained += 1
        now_s = asyncio.get_running_loop().time()
        while self._draining is not None or self._spool.waiting or now_s >= self._orphans_at_s:
            if self._draining is None:
                self._draining = await self._spool.take(orphans=now_s >= self._orphans_at_s)
            if self._draining is None:
                self._orphans_at_s = now_s + self._orphans_s
                break
            await self._drain_segment(self._draining)
            self._draining = None

    async def _drain_segment(self, segment: Segment) -> None:
        """Raises StoreError where some of it is left."""
        lines, left = segment.lines, []
        stopped: BaseException | None = None
        for start in range(0, len(lines), DRAIN_BATCH):
            batch = lines[start : start + DRAIN_BATCH]
            outcomes = await asyncio.gather(*map(self._pay_line, batch), return_exceptions=True)
            for line, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    left.append(line)
                    stopped = outcome
                else:
                    self.drained += 1
            if stopped is not None:
                left += lines[start + DRAIN_BATCH :]
                break
        await self._spool.done(segment, left)
        if stopped is not None:
            raise stopped

    async def _pay_line(self, line: bytes) -> None:
        """Raises StoreUnavailable or StoreRefused: both may pass. A line that the store will never take is set aside,
        so that those behind it are not held up."""
        try:
            await self._pay(owed.decode(line))
        except (StoreUnavailable, StoreRefused) as error:
            self._note(error)
            raise
        except (StoreError, msgspec.MsgspecError, ValueError) as error:
            log.error("A spooled line is set aside, since the store does not take it: %s", error)
            await self._spool.set_aside(line)
