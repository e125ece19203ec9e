"""How long holds live and settled calls are remembered, all in ms; and how a hold ends."""

from __future__ import annotations

from functools import lru_cache

from ..core.admission import Charge
from ..core.money import NUSD_MAX
from ..core.usage import Usage
from . import takes
from .client import Client
from .keyspace import ShardKeys
from .packing import Packed, packed, packed_number, packed_text
from .takes import Holding

HOLD_LIFE_MS = 30_000
"""A hold that is not renewed for this long belongs to a process that is gone."""

RENEW_MS = 10_000
"""Holds are renewed this often, so that two renewals may fail before one expires."""

SETTLED_MEMORY_MS = 15 * 60 * 1000
"""How long the store knows that a call is settled: repeats come within seconds, from the spool within minutes. What
comes even later is caught by the ledger, which knows every call."""

UNUSUAL_MEMORY_MS = 32 * 24 * 3600 * 1000
"""How long it knows of calls that were lost, or settled by a later revision: those are few, and a spool on a host that
was switched off may come back after weeks."""

LOST = 0
"""The revision that stands for a call that is given up: it is written only while its hold has expired."""


def charge_of(cost_nusd: int | None, usage: Usage) -> Charge:
    """What a record's counters are charged. An amount beyond what the store counts exactly is charged as the most it
    counts: a settle never refuses, and no limit is higher."""
    nusd, tokens = cost_nusd or 0, usage.tokens
    return Charge(nusd=min(max(nusd, 0), NUSD_MAX), tokens=min(max(tokens, 0), NUSD_MAX), calls=1)


async def end(
    client: Client,
    keys: ShardKeys,
    *,
    call_id: str,
    revision: int,
    record: bytes,
    charge: Charge,
    holding: Holding,
    memory_ms: int = SETTLED_MEMORY_MS,
    late: bool = False,
    kept: bool = True,
) -> int:
    """Ends a hold, charges its counters and writes its record (empty: none). Raises StoreError.

    The hold that the store has counts, not `holding`, which is for where it has none. `late`: so much later than the
    call that the store may have forgotten an earlier settle. Not `kept`: the call came to nothing, and its marks are
    forgotten, since a repeat of it is no duplicate. Returns the revision that was written, 0 where none was.
    """
    names = keys.to_settle(call_id)
    whose = packed_text(call_id.encode()), packed_number(revision), packed_text(record), _memory(memory_ms)
    amounts = packed_number(charge.nusd), packed_number(charge.tokens), _how(charge.calls, late, kept)
    while True:
        told = Packed(11, b"".join((*whose, packed_text(holding.text), *amounts)))
        arguments = told, takes.packed_settle(holding)
        reply = await client.run("settle", (names, holding.packed_keys), arguments)
        if not isinstance(reply, list):
            return int(reply)
        holding = takes.parse(reply[1])


@lru_cache
def _memory(memory_ms: int) -> bytes:
    return packed((memory_ms, UNUSUAL_MEMORY_MS)).data


@lru_cache
def _how(calls: int, late: bool, kept: bool) -> bytes:
    return packed((calls, 1 if late else 0, 0 if kept else 1)).data


async def drop(client: Client, keys: ShardKeys, *, call_id: str, holding: Holding) -> bool:
    """Ends a hold that leaves no record and charges nothing. False where there was none. Raises StoreError."""
    while True:
        arguments = (call_id, holding.text, *takes.release_arguments(holding))
        reply = await client.script("release", (keys.epoch, keys.holds, keys.drafts, *holding.keys[0::2]), arguments)
        if not isinstance(reply, list):
            return bool(reply)
        holding = takes.parse(reply[1])
