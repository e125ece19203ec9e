"""Who made the calls whose cost comes later (background answers, batches), by the id that the provider gave; and the
holds that stand for that cost meanwhile (core/later.py)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..core import later
from ..core import record as records
from ..core.admission import Take
from ..core.record import Record
from . import holds, takes
from .client import Client
from .keyspace import KEYS, shard_of

LATER_LIFE_MS = 32 * 24 * 3600 * 1000
"""Providers keep batches and background answers for at most 30 days."""


class WithTakes(msgspec.Struct):
    """What stands beside the record's own fields: the text of what the call took."""

    takes: msgspec.Raw = msgspec.Raw(b"")


_with_takes = msgspec.json.Decoder(WithTakes)


def with_takes(record: bytes, text: bytes) -> bytes:
    """The record's JSON with the text of its takes (empty: none) as one more field."""
    return record[:-1] + b',"takes":' + text + b"}" if text else record


async def remember(client: Client, org: str, upstream: str, later_id: str, record: bytes) -> None:
    """Keeps the record's JSON, as `with_takes` makes it, under an id: of an answer, of a batch, or of a file with a
    batch's results. Raises StoreError."""
    key = KEYS[shard_of(org)].later(upstream, later_id)
    await client.call("SET", key, record, "PX", LATER_LIFE_MS)


async def recall(client: Client, org: str, upstream: str, later_id: str) -> Record | None:
    """The record of the call that the org made, None where it is not known. Raises StoreError."""
    data = await client.call("GET", KEYS[shard_of(org)].later(upstream, later_id))
    if data is None:
        return None
    try:
        return records.decode(data)
    except msgspec.MsgspecError:
        return None  # written by a version of the proxy that is newer than this one


async def recall_takes(client: Client, org: str, upstream: str, later_id: str) -> takes.Holding:
    """What that call took of its counters. Raises StoreError."""
    data = await client.call("GET", KEYS[shard_of(org)].later(upstream, later_id))
    try:
        return takes.NO_HOLDING if data is None else takes.parse(_with_takes.decode(data).takes)
    except msgspec.MsgspecError:
        return takes.NO_HOLDING


async def first_shown(client: Client, org: str, batch_call_id: str, now_ms: int) -> int:
    """When items of a batch were shown first: now, unless they were before. Raises StoreError."""
    key = KEYS[shard_of(org)].shown(batch_call_id)
    if await client.call("SET", key, now_ms, "NX", "PX", LATER_LIFE_MS):
        return now_ms
    return int(await client.call("GET", key) or now_ms)


def with_what_it_took(data: bytes) -> tuple[Record, Sequence[Take]]:
    """The way back from `with_takes`. Raises msgspec.MsgspecError."""
    return records.decode(data), takes.parse(_with_takes.decode(data).takes).takes


async def hold(client: Client, made: Record, taken: Sequence[Take], life_ms: int = later.HELD_MS) -> None:
    """Holds what a call took until its cost is shown, whatever the limits say. Repeats do no harm, and lengthen the
    hold. Raises StoreError."""
    waiting = later.spending(taken)
    if not waiting:
        return
    draft = later.pending(made, waiting)
    holding = takes.holding(made.org, waiting)
    keys = KEYS[shard_of(made.org)]
    names = (keys.epoch, keys.holds, keys.drafts, keys.settled(draft.call_id), *holding.keys)
    arguments = (draft.call_id, records.encode(draft), life_ms, 1, 0, *takes.reserve_arguments(holding))
    await client.script("reserve", names, arguments)


async def end(client: Client, made: Record, taken: Sequence[Take]) -> None:
    """Ends that hold, since the cost is settled now. Where it was given up before, what it was charged is given back.
    Raises StoreError."""
    waiting = later.spending(taken)
    call_id, keys = later.pending_call_id(made.call_id), KEYS[shard_of(made.org)]
    holding = takes.holding(made.org, waiting)
    if await holds.drop(client, keys, call_id=call_id, holding=holding):
        return
    if await client.call("EXISTS", keys.settled(call_id)):
        record = records.encode(later.shown_after_all(made))
        await holds.end(
            client, keys, call_id=call_id, revision=1, record=record, charge=later.NO_CHARGE, holding=holding
        )
