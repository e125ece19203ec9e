"""CallStore: what a worker does with its calls. Reserve before, settle after; each call is recorded exactly once, also
when the store was away, emptied or killed in between."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from ..core import record as records
from ..core.record import Record
from . import later, owed
from .client import Client
from .epoch import read_epochs
from .errors import StoreError, StoreRebuilding, StoreRefused, StoreUnavailable
from .holds import HOLD_LIFE_MS, RENEW_MS, SETTLED_MEMORY_MS, UNUSUAL_MEMORY_MS
from .keyspace import KEYS, SHARDS, shard_of
from .owed import Owed, OwedLater, OwedRecord, OwedRelease
from .spool import Segment, Spool, SpoolFailed

__all__ = ["CallStore", "StoreUnavailable"]

PROBE_S = 0.2
"""How often a store that was away is looked at, and the spool after it is back."""

ORPHANS_S = 1.0
"""How often the spool directory is searched for files of dead processes."""

RENEW_BATCH = 500
"""call_ids in one script: about half a millisecond of the store's time."""

DRAIN_BATCH = 100
"""Spooled lines that are on their way to the store at once: little enough to leave room for running calls."""

UNSAVED_MAX = 20_000
"""Owed to the store while neither it nor the spool takes anything: about 50 MB of memory. Beyond it, the oldest are
dropped with an error in the log: the last resort, after two failures."""

log = logging.getLogger("callmeter.store")


class Hold(msgspec.Struct, frozen=True):
    """A running call of this process: its shard and the draft of its record (JSON)."""

    shard: int
    draft: bytes


def hold_of(draft: Record) -> Hold:
    return Hold(shard_of(draft.org), records.encode(draft))


class CallStore:
    """One for each worker process. `clock_ms` gives ms since the epoch.

    `spooled` counts what waits on disk, `drained` what was taken from there into the store since the start.
    """

    def __init__(
        self,
        client: Client,
        spool: Spool,
        *,
        clock_ms: Callable[[], int],
        hold_life_ms: int = HOLD_LIFE_MS,
        renew_s: float = RENEW_MS / 1000,
        probe_s: float = PROBE_S,
        orphans_s: float = ORPHANS_S,
        settled_memory_ms: int = SETTLED_MEMORY_MS,
    ) -> None:
        self._client = client
        self._spool = spool
        self._clock_ms = clock_ms
        self._hold_life_ms = hold_life_ms
        self._renew_s = renew_s
        self._probe_s = probe_s
        self._orphans_s = orphans_s
        self._settled_memory_ms = settled_memory_ms
        self._running: dict[str, Hold] = {}
        self._rebuilding = set(range(SHARDS))
        """Shards without an epoch, as far as we know; at first we know of none."""
        self._fault = ""
        """What the store said when it answered but took nothing: out of memory, its disk full, too much under way."""
        self._unsaved: deque[Owed] = deque(maxlen=UNSAVED_MAX)
        self._draining: Segment | None = None
        self._renew_at_s = 0.0
        self._orphans_at_s = 0.0
        self._renewed_connection_s = 0.0
        self._loops: list[asyncio.Task[None]] = []
        self.degraded_since_ms: int | None = clock_ms()
        self.drained = 0

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises StoreRefused (a password, the wrong store) and SpoolFailed. A store that is away is no fault: calls
        are refused or let pass, as policy says, until it is there."""
        await self._spool.open()
        try:
            await self._client.open()
            await self._probe()
        except StoreRefused:
            raise
        except StoreError as error:
            log.warning(str(error))
        for step in (self._probe, self._renew_when_due, self._drain):
            self._loops.append(asyncio.create_task(self._repeat(step)))

    async def close(self) -> None:
        """Ends the loops, writes what waits for the spool and closes the connection. The spool's files stay."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
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
        await self._client.close()

    @property
    def healthy(self) -> bool:
        """Calls can be reserved and settled, as far as we know."""
        return self._client.up and not self._rebuilding and not self._fault

    @property
    def trouble(self) -> str:
        """Why the store is not healthy, as a sentence for a person; empty while it is."""
        if not self._client.up:
            return self._client.trouble
        if self._rebuilding:
            return "The store is being rebuilt: its epoch is not set."
        return self._fault

    @property
    def spooled(self) -> int:
        """Owed to the store: lines in the spool, and what waits in memory because the disk took nothing either."""
        return self._spool.waiting + len(self._unsaved)

    def running(self) -> int:
        """Calls of this process that have a hold, or will have one as soon as the store is back."""
        return len(self._running)

    # -- the calls ------------------------------------------------------------------------------------------------

    async def reserve(self, draft: Record) -> None:
        """Registers the hold of a call, with the draft that becomes its record if this process dies.

        Raises StoreUnavailable, within 0.3 s: the hold may or may not be there then, and expires unless `keep` is
        called. After this, the call must be settled or released.
        """
        hold = hold_of(draft)
        try:
            await self._register(draft.call_id, hold)
        except StoreError as error:
            self._note(hold.shard, error)
            if isinstance(error, StoreUnavailable):
                raise
            raise StoreUnavailable(str(error)) from None
        self._running[draft.call_id] = hold

    def keep(self, draft: Record) -> None:
        """For a call that runs although `reserve` failed: its hold is registered as soon as the store is back."""
        self._running[draft.call_id] = hold_of(draft)

    async def settle(self, record: Record) -> None:
        """Ends the call's hold and records it, once for each revision; what the store cannot take goes to the spool.
        Raises nothing but CancelledError, and may be repeated."""
        data = records.encode(record)
        self._running.pop(record.call_id, None)
        shard = shard_of(record.org)
        try:
            await self._settle(shard, record.call_id, record.revision, data)
        except StoreError as error:
            self._note(shard, error)
            await self._owe(OwedRecord(msgspec.Raw(data)))

    async def release(self, call_id: str, org: str) -> None:
        """Ends a hold that leaves no record. Raises nothing but CancelledError."""
        self._running.pop(call_id, None)
        await self._do_or_owe(shard_of(org), OwedRelease(org, call_id))

    async def remember_later(self, org: str, upstream: str, later_id: str, record: Record) -> None:
        """Keeps who made a call whose usage a later retrieval of `later_id` (an answer, a batch, a file with a batch's
        results) will show, for 32 days. Raises nothing but CancelledError."""
        data = msgspec.Raw(records.encode(record))
        await self._do_or_owe(shard_of(org), OwedLater(org, upstream, later_id, data))

    async def recall_later(self, org: str, upstream: str, later_id: str) -> Record | None:
        """The record that was kept, None where it is not known or the store is away: the ledger may know it then."""
        try:
            return await later.recall(self._client, org, upstream, later_id)
        except StoreError as error:
            self._note(shard_of(org), error)
            return None

    # -- the store ------------------------------------------------------------------------------------------------

    async def _register(self, call_id: str, hold: Hold) -> None:
        keys = KEYS[hold.shard]
        names = (keys.epoch, keys.holds, keys.drafts, keys.settled(call_id))
        await self._client.script("reserve", names, (call_id, hold.draft, self._hold_life_ms))

    async def _settle(self, shard: int, call_id: str, revision: int, data: bytes | msgspec.Raw) -> None:
        keys = KEYS[shard]
        names = (keys.epoch, keys.holds, keys.drafts, keys.settled(call_id), keys.records)
        arguments = (call_id, revision, bytes(data), self._settled_memory_ms, UNUSUAL_MEMORY_MS)
        await self._client.script("settle", names, arguments)
        self._fault = ""

    async def _do(self, item: Owed) -> None:
        """Gives the store what it is owed. Raises StoreError."""
        if isinstance(item, OwedRecord):
            head = owed.head(item.record)
            await self._settle(shard_of(head.org), head.call_id, head.revision, item.record)
        elif isinstance(item, OwedRelease):
            keys = KEYS[shard_of(item.org)]
            await self._client.script("release", (keys.epoch, keys.holds, keys.drafts), (item.call_id,))
        else:
            await later.remember(self._client, item.org, item.upstream, item.later_id, bytes(item.record))

    async def _do_or_owe(self, shard: int, item: Owed) -> None:
        try:
            await self._do(item)
        except StoreError as error:
            self._note(shard, error)
            await self._owe(item)

    async def _owe(self, item: Owed) -> None:
        """Puts it into the spool, or keeps it in memory where the disk fails, too."""
        try:
            await self._spool.append(owed.encode(item))
        except SpoolFailed as error:
            if len(self._unsaved) == UNSAVED_MAX:
                log.error("A record is lost: neither the store nor the spool takes anything. %s", error)
            elif not self._unsaved:
                log.error("Records wait in memory, since the spool cannot be written: %s", error)
            self._unsaved.append(item)

    def _note(self, shard: int | None, error: StoreError) -> None:
        """Remembers what is wrong, so that `healthy` says so and the probe looks when it is over."""
        if self.degraded_since_ms is None:
            self.degraded_since_ms = self._clock_ms()
        if isinstance(error, StoreRebuilding):
            if shard is not None:
                self._rebuilding.add(shard)
        elif self._client.up:
            if not self._fault:
                log.warning(str(error))
            self._fault = str(error)

    # -- the loops ------------------------------------------------------------------------------------------------

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._probe_s)
            try:
                await step()
            except StoreError:
                pass  # noted where it happened; the next round tries again
            except Exception:
                log.exception("Work on the store failed and goes on.")

    async def _probe(self) -> None:
        """Sees whether shards that were rebuilding have an epoch again, and since when anything is wrong."""
        if self._client.up and self._rebuilding:
            ready = self._rebuilding & (await read_epochs(self._client)).keys()
            self._rebuilding -= ready
            if ready:
                self._renew_at_s = 0.0
        if self.healthy:
            self.degraded_since_ms = None
        elif self.degraded_since_ms is None:
            self.degraded_since_ms = self._clock_ms()

    async def _renew_when_due(self) -> None:
        """Every `renew_s`, and at once when the store is back: it may have forgotten the holds, or never known them."""
        if not self._client.up:
            return
        now_s, connected_at_s = asyncio.get_running_loop().time(), self._client.connected_at_s
        if now_s < self._renew_at_s and connected_at_s == self._renewed_connection_s:
            return
        self._renew_at_s, self._renewed_connection_s = now_s + self._renew_s, connected_at_s
        await self._renew()

    async def _renew(self) -> None:
        """Lengthens all holds of this process in one write, and registers again those that are gone."""
        by_shard: dict[int, list[str]] = {}
        for call_id, hold in self._running.items():
            by_shard.setdefault(hold.shard, []).append(call_id)
        outcomes = await asyncio.gather(
            *[
                self._renew_batch(shard, call_ids[start : start + RENEW_BATCH])
                for shard, call_ids in by_shard.items()
                for start in range(0, len(call_ids), RENEW_BATCH)
            ],
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _renew_batch(self, shard: int, call_ids: list[str]) -> None:
        keys = KEYS[shard]
        try:
            gone = await self._client.script("renew", (keys.epoch, keys.holds), (self._hold_life_ms, *call_ids))
            for call_id in [name.decode() for name in gone]:
                # One that was settled meanwhile runs no longer; one that is being settled has its marker.
                if (hold := self._running.get(call_id)) is not None:
                    await self._register(call_id, hold)
        except StoreError as error:
            self._note(shard, error)
            raise

    # -- what is owed -----------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Gives the store what it is owed: from memory, from our files, then from files of processes that are dead."""
        if not self._client.up:
            return
        while self._unsaved:
            await self._do(self._unsaved[0])
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
        if not self.spooled:
            self._fault = ""  # nothing waits any more: whatever was wrong is over, or the next call will say so

    async def _drain_segment(self, segment: Segment) -> None:
        """Raises StoreError where some of it is left."""
        lines, left = segment.lines, []
        stopped: BaseException | None = None
        for start in range(0, len(lines), DRAIN_BATCH):
            batch = lines[start : start + DRAIN_BATCH]
            outcomes = await asyncio.gather(*map(self._do_line, batch), return_exceptions=True)
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

    async def _do_line(self, line: bytes) -> None:
        """Raises StoreUnavailable or StoreRefused: both may pass. A line that the store will never take is set aside,
        so that those behind it are not held up."""
        try:
            await self._do(owed.decode(line))
        except (StoreUnavailable, StoreRefused) as error:
            self._note(None, error)
            raise
        except (StoreError, msgspec.MsgspecError) as error:
            log.error("A spooled line is set aside, since the store does not take it: %s", error)
            await self._spool.set_aside(line)
