from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.core.record import Record, decode, encode
from proxy.core.usage import Usage
from proxy.store.client import Client
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.sweeper import Sweeper, lost
from tests.support.store import a_record, begin_epochs, entries, eventually, hold_of, open_calls, open_client, written


async def sweep(client: Client, **options: int) -> int:
    return await Sweeper(client, **({"hold_life_ms": 0} | options)).sweep()


async def test_calls_of_a_dead_process_become_lost_records_in_batches(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path, hold_life_ms=0) as store:
        for number in range(25):
            await store.reserve(a_record(f"c{number}", org=f"org-{number % 3}", status=200))
    async with open_client(store_url) as client:
        assert await sweep(client, batch=4) == 25
        found = [decode(entry.data) for entry in await entries(client)]
        assert {record.call_id for record in found} == {f"c{number}" for number in range(25)}
        assert {(record.result, record.status, record.revision) for record in found} == {("lost", 0, 1)}
        assert await sweep(client) == 0
        assert len(await entries(client)) == 25


async def test_a_hold_that_is_renewed_is_left_alone(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path, hold_life_ms=60_000) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"))
        assert await sweep(client) == 0
        assert await hold_of(client, "c1") is not None


async def test_a_hold_that_outlived_its_settle_is_dropped_without_a_record(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    keys = KEYS[shard_of("acme")]
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.settle(a_record("c1"))
        await client.pipeline([("ZADD", keys.holds, 1, "c1"), ("HSET", keys.drafts, "c1", encode(a_record("c1")))])
        assert await sweep(client) == 0
        assert (await hold_of(client, "c1"), await written(client)) == (None, {("c1", 1): 1})


async def test_an_unreadable_draft_is_dropped(store_url: str) -> None:
    await begin_epochs(store_url)
    async with open_client(store_url) as client:
        await client.call("ZADD", KEYS[3].holds, 1, "c1")
        assert await sweep(client) == 0
        assert await client.call("ZCARD", KEYS[3].holds) == 0


async def test_shards_without_an_epoch_wait(store_url: str) -> None:
    async with open_client(store_url) as client:
        assert await sweep(client) == 0


async def test_after_a_reconnect_the_sweeper_waits_one_life_of_a_hold(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path, hold_life_ms=0) as store:
        await store.reserve(a_record("c1"))
    async with open_client(store_url) as client:
        sweeper = Sweeper(client, hold_life_ms=60_000)
        assert (sweeper.patient, await sweeper.sweep()) == (True, 0)
        client.connected_at_s -= 61
        assert (sweeper.patient, await sweeper.sweep()) == (False, 1)
        before_s = client.connected_at_s
        await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
        await eventually(lambda: client.connected_at_s != before_s)
        assert sweeper.patient


@pytest.mark.parametrize(
    ("draft", "cost_nusd", "parts", "source"),
    [
        (a_record("c1"), 0, {}, "none"),
        (a_record("c1", hold_nusd=9, cost_nusd=9, cost_parts_nusd={"input": 9}), 9, {"input": 9}, "estimated"),
        (a_record("c1", hold_nusd=9, cost_nusd=4, cost_parts_nusd={"input": 4}), 9, {}, "estimated"),
        (a_record("c1", cost_nusd=None, usage=Usage(input=3)), None, {}, "estimated"),
    ],
)
def test_a_lost_call_costs_what_it_was_expected_to(
    draft: Record, cost_nusd: int | None, parts: dict[str, int], source: str
) -> None:
    record = lost(b"c1", msgspec.json.encode(draft))
    assert record is not None
    assert (record.cost_nusd, record.cost_parts_nusd, record.usage_source) == (cost_nusd, parts, source)
