"""Who made the calls whose cost comes later: background answers and batches, by the id that the provider gave."""

from __future__ import annotations

import msgspec

from ..core import record as records
from ..core.record import Record
from . import takes
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
    if data is None:
        return takes.NO_HOLDING
    try:
        text = _with_takes.decode(data).takes
    except msgspec.MsgspecError:
        return takes.NO_HOLDING
    return takes.parse(text)
