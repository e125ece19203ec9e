from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.core.record import decode
from proxy.store.client import Client
from proxy.store.errors import StoreUnavailable
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.ledger_stream import Entry, StreamReader
from tests.support.store import a_record, begin_epochs, ensure_epochs, eventually, open_calls, open_client
from tests.support.valkey import RunningServer

SHARD = shard_of("acme")


@asynccontextmanager
async def open_reader(client: Client) -> AsyncIterator[StreamReader]:
    reader = StreamReader(client)
    await reader.open()
    yield reader
    await reader.close()


def names(batch: list[Entry]) -> list[str]:
    return [decode(entry.data).call_id for entry in batch]


def behind(batch: list[Entry]) -> dict[int, tuple[str, str]]:
    return {entry.shard: (entry.epoch, entry.id) for entry in batch}


async def test_reading_goes_on_behind_the_position(store_url: str, tmp_path: Path) -> None:
    begun = await begin_epochs(store_url)
    async with (
        open_calls(store_url, tmp_path) as store,
        open_client(store_url) as client,
        open_reader(client) as reader,
    ):
        await store.settle(a_record("c1"))
        first = await reader.read({})
        assert names(first) == ["c1"]
        assert first[0].epoch == begun[SHARD]
        await store.settle(a_record("c2"))
        assert names(await reader.read(behind(first))) == ["c2"]
        assert await reader.read(behind(await reader.read(behind(first))), block_ms=1) == []


async def test_a_waiting_read_returns_with_the_first_record_of_any_shard(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with (
        open_calls(store_url, tmp_path) as store,
        open_client(store_url) as client,
        open_reader(client) as reader,
    ):
        waiting = asyncio.create_task(reader.read({}))
        await asyncio.sleep(0)
        await store.settle(a_record("c1", org="an org that was never seen"))
        assert names(await waiting) == ["c1"]


async def test_many_shards_share_the_count(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with (
        open_calls(store_url, tmp_path) as store,
        open_client(store_url) as client,
        open_reader(client) as reader,
    ):
        records = [a_record(f"{org}-{number}", org=f"org-{org}") for org in range(5) for number in range(40)]
        await asyncio.gather(*map(store.settle, records))
        await reader.read({}, count=100)
        positions: dict[int, tuple[str, str]] = {}
        found: list[str] = []
        while batch := await reader.read(positions, count=100, block_ms=1):
            assert len(batch) <= 100
            found += names(batch)
            positions |= behind(batch)
    assert sorted(found) == sorted(record.call_id for record in records)


async def test_trimming_drops_what_the_ledger_has_and_nothing_else(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with (
        open_calls(store_url, tmp_path) as store,
        open_client(store_url) as client,
        open_reader(client) as reader,
    ):
        for number in range(5):
            await store.settle(a_record(f"c{number}"))
        batch = await reader.read({}, count=640)
        assert (await reader.lag({})).records == 5
        await reader.trim({SHARD: batch[2].id})
        assert names(await reader.read({}, count=640)) == ["c3", "c4"]
        lag = await reader.lag(behind(batch))
        assert (lag.records, lag.oldest_ms) == (2, 0)
        await reader.trim({SHARD: batch[4].id})
        assert (await reader.lag(behind(batch))).records == 0


async def test_the_lag_is_the_age_of_the_oldest_record_that_was_not_read(store_url: str) -> None:
    begun = await begin_epochs(store_url)
    async with open_client(store_url) as client, open_reader(client) as reader:
        seconds, micros = await client.call("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        for age_ms in (5000, 3000):
            fields = ("e", begun[SHARD], "v", 1, "r", "{}")
            await client.call("XADD", KEYS[SHARD].records, f"{now_ms - age_ms}-0", *fields)
        lag = await reader.lag({})
        assert (lag.records, lag.oldest_ms >= 5000) == (2, True)
        assert 3000 <= (await reader.lag({SHARD: (begun[SHARD], f"{now_ms - 5000}-0")})).oldest_ms < 5000


async def test_a_store_without_epochs_is_waited_for(store_url: str, tmp_path: Path) -> None:
    async with open_client(store_url) as client, open_reader(client) as reader:
        assert await reader.read({}, block_ms=1) == []
        await begin_epochs(store_url)
        async with open_calls(store_url, tmp_path) as store:
            await store.settle(a_record("c1"))
        assert names(await reader.read({}, block_ms=1)) == ["c1"]


async def test_an_emptied_store_is_read_from_its_beginning(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with (
        open_calls(store_url, tmp_path) as store,
        open_client(store_url) as client,
        open_reader(client) as reader,
    ):
        await store.settle(a_record("c1"))
        positions = behind(await reader.read({}))
        await client.call("FLUSHALL")
        now = await ensure_epochs(client, ledger_position=positions)
        # Written with an id before our old position, as by a clock that was set back.
        await client.call("XADD", KEYS[SHARD].records, "5-0", "e", now[SHARD], "v", 1, "r", "{}")
        await store.settle(a_record("c2"))
        found: list[Entry] = []
        while len(found) < 2:
            found += await reader.read(positions | behind(found), block_ms=1)
        assert [(entry.epoch, entry.id == "5-0") for entry in found] == [(now[SHARD], True), (now[SHARD], False)]


async def test_an_older_copy_is_read_again_under_its_new_epoch(store_url: str, tmp_path: Path) -> None:
    begun = await begin_epochs(store_url)
    async with (
        open_calls(store_url, tmp_path) as store,
        open_client(store_url) as client,
        open_reader(client) as reader,
    ):
        await store.settle(a_record("c1"))
        assert names(await reader.read({})) == ["c1"]
        positions = {SHARD: (begun[SHARD], "9999999999999-0")}
        now = await ensure_epochs(client, ledger_position=positions)
        found: list[Entry] = []
        while not found:
            found = await reader.read(positions, block_ms=1)
        assert (names(found), found[0].epoch) == (["c1"], now[SHARD])
        assert await reader.read(behind(found), block_ms=1) == []


async def test_reading_says_that_the_store_is_away_and_goes_on_when_it_is_back(
    own_valkey: RunningServer, tmp_path: Path
) -> None:
    await begin_epochs(own_valkey.url)
    async with open_client(own_valkey.url) as client, open_reader(client) as reader:
        waiting = asyncio.create_task(reader.read({}))
        await asyncio.sleep(0.01)
        await own_valkey.kill()
        with pytest.raises(StoreUnavailable):
            await waiting
        await own_valkey.start()
        async with open_calls(own_valkey.url, tmp_path) as store:
            await store.settle(a_record("c1"))
            await eventually(lambda: store.spooled == 0)
        await reader._blocking.until_up()
        await client.until_up()
        assert names(await reader.read({})) == ["c1"]
