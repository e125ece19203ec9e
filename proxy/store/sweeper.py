"""Sweeper: expired holds become records of lost calls. Run by the active bookkeeper."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from ..core import record as records
from ..core.admission import NOTHING
from ..core.record import Record
from . import holds, takes
from .client import Client
from .errors import StoreRebuilding
from .holds import HOLD_LIFE_MS, LOST, charge_of
from .keyspace import KEYS, ShardKeys

BATCH = 100
"""Holds that are given up in one write: a few milliseconds of the store's time."""

log = logging.getLogger("callmeter.store")


class Sweeper:
    """`lost` is provisional: the worker may only have been cut off. So the sweeper leaves it time: after the store was
    away it waits for one life of a hold, in which every worker that still runs renews its own."""

    def __init__(self, client: Client, *, hold_life_ms: int = HOLD_LIFE_MS, batch: int = BATCH) -> None:
        self._client = client
        self._hold_life_s = hold_life_ms / 1000
        self._batch = batch

    @property
    def patient(self) -> bool:
        """It still waits after the store was away."""
        if not self._client.up:
            return True
        return asyncio.get_running_loop().time() < self._client.connected_at_s + self._hold_life_s

    async def sweep(self) -> int:
        """One round over all shards; how many calls were given up as lost. Repeats do no harm. Raises StoreError."""
        if self.patient:
            return 0
        rounds = await asyncio.gather(*[self._sweep_shard(keys) for keys in KEYS], return_exceptions=True)
        for outcome in rounds:
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreRebuilding):
                raise outcome
        return sum(outcome for outcome in rounds if isinstance(outcome, int))

    async def _sweep_shard(self, keys: ShardKeys) -> int:
        written = 0
        while True:
            found = await self._client.script("expired", (keys.epoch, keys.holds, keys.drafts), (self._batch,))
            if not found:
                return written
            rows = zip(found[0::3], found[1::3], found[2::3], strict=True)
            outcomes = await asyncio.gather(*[self._give_up(keys, *row) for row in rows], return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                written += bool(outcome)

    async def _give_up(self, keys: ShardKeys, call_id: bytes, draft: bytes, taken: bytes) -> int:
        """Ends one hold; 1 if its call became a lost one. A hold that was renewed meanwhile is left alone; one that
        outlived its settle, or has no readable draft, goes without a record."""
        record = lost(call_id, draft)
        return await holds.end(
            self._client,
            keys,
            call_id=call_id.decode(),
            revision=LOST,
            record=records.encode(record) if record is not None else b"",
            charge=charge_of(record.cost_nusd, record.usage) if record is not None else NOTHING,
            holding=takes.parse(taken),
            kept=False,
        )


def lost(call_id: bytes, draft: bytes) -> Record | None:
    """The record of a call that was given up: it costs what it was expected to. None where the draft is unreadable."""
    try:
        record = records.decode(draft)
    except msgspec.MsgspecError:
        log.error("The hold of call %s has no readable draft; it is dropped.", call_id.decode())
        return None
    record.result, record.status, record.revision = "lost", 0, 1
    record.usage_source = "estimated" if record.hold_nusd or record.usage.tokens else "none"
    if record.hold_nusd > 0 and record.cost_nusd != record.hold_nusd:
        record.cost_nusd = record.hold_nusd
        record.cost_parts_nusd = {}  # the hold was not made up of the parts, so nobody knows them
    return record
