"""Counters: read for the admin port; set anew from the ledger when the store was emptied; added to once.

What was spent is known to the ledger as well, so it can be brought back. What is held is not: it begins at nothing, and
the workers register their running calls again, with all they take.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from ..core.admission import State, Take, oldest_bucket
from ..core.record import Record
from . import takes
from .client import Client
from .epoch import EPOCH_BYTES
from .holds import UNUSUAL_MEMORY_MS, charge_of
from .keyspace import KEYS, ShardKeys, shard_of
from .packing import Argument

SET_BATCH = 5_000
"""Counters that one script sets: a few milliseconds of the store's time."""

READ_BATCH = 1_000
"""Counters that are read in one write."""

CACHE_FIELDS = (b"from", b"sum")
"""Fields in the hash of a rolling counter that are no sub-buckets."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent of one counter in one window, as in `Take`. Of a rolling window: in one sub-bucket, the last of
    the window that is given."""

    org: str
    counter: str
    amount: int
    window_start_ms: int
    window_end_ms: int
    bucket_ms: int = 0

    @property
    def window(self) -> str:
        return takes.window_name(self.window_start_ms, self.bucket_ms)

    @property
    def key(self) -> str:
        return KEYS[shard_of(self.org)].spent(self.org, self.counter, self.window)

    @property
    def bucket(self) -> Argument:
        return self.window_end_ms - self.bucket_ms if self.bucket_ms else ""

    @property
    def life(self) -> int:
        return takes.spent_life(self.window_start_ms, self.window_end_ms, self.bucket_ms)


async def read_counters(client: Client, org: str, asked: Sequence[Take]) -> list[State]:
    """What the counters of takes stand at, in their order; their amounts and limits do not matter. One round trip for
    every thousand, and the numbers of different counters may be a moment apart. Raises StoreError."""
    states: list[State] = []
    for start in range(0, len(asked), READ_BATCH):
        states += await _read(client, org, asked[start : start + READ_BATCH])
    return states


async def _read(client: Client, org: str, asked: Sequence[Take]) -> list[State]:
    keys = KEYS[shard_of(org)]
    commands: list[tuple[str, ...]] = [("TIME",)]
    for take in asked:
        window = takes.window_name(take.window_start_ms, take.bucket_ms)
        commands.append(("GET", keys.held(org, take.counter, window)))
        commands.append(("HGETALL" if take.bucket_ms else "GET", keys.spent(org, take.counter, window)))
    (seconds, micros), *replies = await client.pipeline(commands)
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    states = []
    for take, held, spent in zip(asked, replies[0::2], replies[1::2], strict=True):
        if take.bucket_ms:
            buckets = dict(zip(spent[0::2], spent[1::2], strict=True))
            oldest_ms = oldest_bucket(take, now_ms)
            spent = sum(
                int(amount)
                for bucket, amount in buckets.items()
                if bucket not in CACHE_FIELDS and int(bucket) >= oldest_ms
            )
        states.append(State(int(spent or 0), int(held or 0)))
    return states


async def set_counters(client: Client, shard: int, spent: Sequence[Spent]) -> bool:
    """Begins the epoch of a shard that is rebuilding, with these counters, all of orgs of the shard; holds begin at
    nothing. Amounts are set, not added. False where the shard has an epoch already. Raises StoreError.

    What an older copy of the store holds of other counters stays: it is of windows that are over, or the ledger would
    know of it."""
    keys = KEYS[shard]
    helds = await _held_keys(client, keys)
    batches = [spent[start : start + SET_BATCH] for start in range(0, len(spent), SET_BATCH)] or [()]
    for number, batch in enumerate(batches, start=1):
        name = secrets.token_hex(EPOCH_BYTES) if number == len(batches) else ""
        arguments: list[Argument] = [name, len(helds)]
        for counter in batch:
            arguments += (counter.amount, counter.life, counter.bucket)
        names = (keys.epoch, keys.holds, keys.drafts, *helds, *(counter.key for counter in batch))
        if not await client.script("counters", names, arguments):
            return False
        helds = []
    return True


async def _held_keys(client: Client, keys: ShardKeys) -> list[str]:
    """The counters that the holds in an older copy of the store take of. They are out of date like the holds."""
    fields = await client.call("HGETALL", keys.drafts)
    names: set[str] = set()
    for field, text in zip(fields[0::2], fields[1::2], strict=True):
        if field.endswith(b":takes"):
            names.update(takes.parse(text).keys[0::2])
    return sorted(names)


async def seed(client: Client, spent: Spent, name: str = "seed") -> bool:
    """Adds to what a counter has spent, once for each counter, window and name: what the ledger knows of a counter that
    is new, or that was not counted for a while. False where that was done before. Raises StoreError."""
    return await _add_once(client, spent, name, UNUSUAL_MEMORY_MS if spent.window_end_ms else 0)


async def _add_once(client: Client, spent: Spent, name: str, remember_ms: int) -> bool:
    """Once for each name; it is remembered for so long, 0 for ever."""
    keys = KEYS[shard_of(spent.org)]
    window = str(spent.bucket) if spent.bucket_ms else spent.window
    names = (keys.epoch, keys.seeded(spent.org, spent.counter, window, name), spent.key)
    return bool(await client.script("seed", names, (spent.amount, spent.life, spent.bucket, remember_ms)))


async def charge_late(client: Client, record: Record, uncharged: bytes) -> None:
    """Charges the counters of a call whose record came so late that the store could not tell whether they were. Call it
    when the record turned out to be new in the ledger; repeats do no harm. Raises StoreError."""
    charge = charge_of(record.cost_nusd, record.usage)
    for take in takes.parse(uncharged).takes:
        if amount := charge.of(take.unit):
            spent = Spent(
                org=record.org,
                counter=take.counter,
                amount=amount,
                window_start_ms=take.window_start_ms,
                window_end_ms=take.window_end_ms,
                bucket_ms=take.bucket_ms,
            )
            await _add_once(client, spent, record.call_id, UNUSUAL_MEMORY_MS)
