"""Epochs: how an emptied store, or an older copy of it, is told from the one we knew.

Each shard has a key that names its epoch. While it is missing the shard takes nothing (it is *rebuilding*) and workers
spool. Only the active bookkeeper begins epochs (counters.py), because only the ledger knows what was there before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .client import Client
from .keyspace import KEYS

EPOCH_BYTES = 8
NOTHING_READ = ("", "")


async def rebuilding(client: Client, *, ledger_position: Mapping[int, tuple[str, str]]) -> set[int]:
    """The shards without an epoch: of a new or emptied store, and of one that turns out to be an older copy, since its
    stream ends before `ledger_position` (shard -> epoch and stream id up to which the ledger has read). They take
    nothing until their counters are set. Cheap enough to be called twice a second. Raises StoreError.

    An older copy that has taken more records since than it lost is not noticed; what it lost of holds is registered
    again by the workers, and the ledger ignores records that it has.
    """
    asked = []
    for shard, keys in enumerate(KEYS):
        asked.append(client.script("epoch", (keys.epoch, keys.records), ledger_position.get(shard, NOTHING_READ)))
    replies = await asyncio.gather(*asked)
    return {shard for shard, has_epoch in enumerate(replies) if not has_epoch}


async def read_epochs(client: Client) -> dict[int, str]:
    """The epochs of the shards that have one. Raises StoreError."""
    replies = await client.pipeline(("GET", keys.epoch) for keys in KEYS)
    return {shard: reply.decode() for shard, reply in enumerate(replies) if reply is not None}
