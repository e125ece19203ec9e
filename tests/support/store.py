"""Helpers for tests of the store: open clients and call stores, records, and what the streams hold."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.core.record import Record, decode
from proxy.store.calls import CallStore
from proxy.store.client import Client
from proxy.store.counters import set_counters
from proxy.store.epoch import read_epochs, rebuilding
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.ledger_stream import Entry, StreamReader
from proxy.store.spool import Spool
from tests.support.valkey import PATIENT_S


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def a_record(call_id: str, *, org: str = "acme", **fields: Any) -> Record:
    return Record(call_id=call_id, at_ms=now_ms(), org=org, user="ada", key_id="k1", **fields)


@asynccontextmanager
async def open_client(url: str, **options: Any) -> AsyncIterator[Client]:
    client = Client(url, **({"command_timeout_s": PATIENT_S, "connect_timeout_s": PATIENT_S} | options))
    await client.open()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def open_calls(
    url: str, folder: Path, *, command_timeout_s: float = PATIENT_S, **options: Any
) -> AsyncIterator[CallStore]:
    """A call store that looks after itself every few ms rather than every few hundred."""
    client = Client(url, command_timeout_s=command_timeout_s, connect_timeout_s=PATIENT_S)
    quick = {"probe_s": 0.01, "orphans_s": 0.02} | options
    store = CallStore(client, Spool(folder), clock_ms=now_ms, **quick)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def ensure_epochs(client: Client, *, ledger_position: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """As the bookkeeper does, for a ledger that knows of nothing spent. The epoch of each shard."""
    shards = await rebuilding(client, ledger_position=ledger_position)
    await asyncio.gather(*[set_counters(client, shard, ()) for shard in shards])
    return await read_epochs(client)


async def begin_epochs(url: str) -> dict[int, str]:
    async with open_client(url) as client:
        return await ensure_epochs(client, ledger_position={})


async def entries(client: Client) -> list[Entry]:
    """Everything in the streams, as the bookkeeper would read it."""
    reader = StreamReader(client)
    await reader.open()
    found: list[Entry] = []
    try:
        await reader._blocking.until_up()
        positions: dict[int, tuple[str, str]] = {}
        while batch := await reader.read(positions, count=100_000, block_ms=5):
            found += batch
            positions |= {entry.shard: (entry.epoch, entry.id) for entry in batch}
    finally:
        await reader.close()
    return found


async def written(client: Client) -> Counter[tuple[str, int]]:
    """How often each (call_id, revision) is in the streams."""
    return Counter((decode(entry.data).call_id, entry.revision) for entry in await entries(client))


async def hold_of(client: Client, call_id: str, org: str = "acme") -> bytes | None:
    """When the hold expires, None where there is none."""
    score: bytes | None = await client.call("ZSCORE", KEYS[shard_of(org)].holds, call_id)
    return score


async def eventually(holds: Callable[[], Any]) -> None:
    """Waits until `holds()` (which may be a coroutine) is true; fails when it never becomes so."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            outcome = holds()
            if asyncio.iscoroutine(outcome):
                outcome = await outcome
            if outcome:
                return
            await asyncio.sleep(0.005)
