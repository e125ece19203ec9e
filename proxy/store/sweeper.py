"""Sweeper: expired holds become records of lost calls. Run by the active bookkeeper."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from ..core import record as records
from .client import Client
from .errors import StoreRebuilding
from .holds import HOLD_LIFE_MS, UNUSUAL_MEMORY_MS
from .keyspace import KEYS, ShardKeys

BATCH = 100
"""Holds that one script gives up: about a millisecond of the store's time."""

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
            markers: list[str] = []
            arguments: list[bytes | int] = [UNUSUAL_MEMORY_MS]
            for call_id, draft in zip(found[0::2], found[1::2], strict=True):
                markers.append(keys.settled(call_id.decode()))
                arguments += [call_id, lost(call_id, draft)]
            names = (keys.epoch, keys.holds, keys.drafts, keys.records, *markers)
            written += await self._client.script("sweep", names, arguments)


def lost(call_id: bytes, draft: bytes) -> bytes:
    """The record of a call that was given up: it costs what it was expected to. Empty where the draft is unreadable."""
    try:
        record = records.decode(draft)
    except msgspec.MsgspecError:
        log.error("The hold of call %s has no readable draft; it is dropped.", call_id.decode())
        return b""
    record.result, record.status, record.revision = "lost", 0, 1
    record.usage_source = "estimated" if record.hold_nusd or record.usage.tokens else "none"
    if record.hold_nusd > 0 and record.cost_nusd != record.hold_nusd:
        record.cost_nusd = record.hold_nusd
        record.cost_parts_nusd = {}  # the hold was not made up of the parts, so nobody knows them
    return records.encode(record)
