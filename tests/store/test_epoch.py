from __future__ import annotations

from pathlib import Path

from proxy.store.client import Client
from proxy.store.epoch import read_epochs
from proxy.store.keyspace import KEYS, SHARDS, shard_of
from tests.support.store import a_record, begin_epochs, ensure_epochs, entries, open_calls, open_client

SHARD = shard_of("acme")


async def settle(store_url: str, folder: Path, *call_ids: str) -> None:
    async with open_calls(store_url, folder) as store:
        for call_id in call_ids:
            await store.settle(a_record(call_id))


async def last_position(client: Client) -> tuple[str, str]:
    entry = (await entries(client))[-1]
    return entry.epoch, entry.id


async def test_every_shard_gets_an_epoch_and_keeps_it(store_url: str) -> None:
    async with open_client(store_url) as client:
        assert await read_epochs(client) == {}
        begun = await ensure_epochs(client, ledger_position={})
        assert set(begun) == set(range(SHARDS))
        assert await ensure_epochs(client, ledger_position={}) == begun
        assert await read_epochs(client) == begun


async def test_an_epoch_stays_while_the_stream_holds_what_the_ledger_has_read(store_url: str, tmp_path: Path) -> None:
    begun = await begin_epochs(store_url)
    await settle(store_url, tmp_path, "c1", "c2")
    async with open_client(store_url) as client:
        place = await last_position(client)
        await client.call("XTRIM", KEYS[SHARD].records, "MAXLEN", 0)
        assert await ensure_epochs(client, ledger_position={SHARD: place}) == begun


async def test_an_older_copy_of_the_store_begins_a_new_epoch(store_url: str, tmp_path: Path) -> None:
    begun = await begin_epochs(store_url)
    await settle(store_url, tmp_path, "c1")
    async with open_client(store_url) as client:
        copy = await client.call("DUMP", KEYS[SHARD].records)
        await settle(store_url, tmp_path, "c2")
        place = await last_position(client)
        await client.call("RESTORE", KEYS[SHARD].records, 0, copy, "REPLACE")
        now = await ensure_epochs(client, ledger_position={SHARD: place})
        changed = {shard for shard in now if now[shard] != begun[shard]}
        assert changed == {SHARD}
        assert await ensure_epochs(client, ledger_position={SHARD: place}) == now


async def test_a_stream_that_vanished_begins_a_new_epoch(store_url: str, tmp_path: Path) -> None:
    begun = await begin_epochs(store_url)
    await settle(store_url, tmp_path, "c1")
    async with open_client(store_url) as client:
        place = await last_position(client)
        await client.call("DEL", KEYS[SHARD].records)
        assert (await ensure_epochs(client, ledger_position={SHARD: place}))[SHARD] != begun[SHARD]


async def test_ids_are_compared_as_numbers(store_url: str) -> None:
    begun = await begin_epochs(store_url)
    async with open_client(store_url) as client:
        await client.call("XADD", KEYS[SHARD].records, "100-10", "e", begun[SHARD], "v", 1, "r", "{}")
        for read, kept in (("100-9", True), ("99-11", True), ("100-10", True), ("100-11", False)):
            now = await ensure_epochs(client, ledger_position={SHARD: (begun[SHARD], read)})
            assert (now[SHARD] == begun[SHARD]) is kept
