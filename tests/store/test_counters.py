from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.core.admission import State
from proxy.store import counters as counters_module
from proxy.store.client import Client
from proxy.store.counters import Spent, read_counters, seed, set_counters
from proxy.store.epoch import read_epochs, rebuilding
from proxy.store.errors import StoreRebuilding
from proxy.store.keyspace import KEYS, SHARDS, shard_of
from tests.support.store import a_record, begin_epochs, entries, hold_of, open_calls, open_client
from tests.support.takes import HOUR_MS, a_rolling_take, a_take, an_endless_take

SHARD = shard_of("acme")


def spent(take: object, amount: int, **changes: int) -> Spent:
    fields = {name: getattr(take, name) for name in ("counter", "window_start_ms", "window_end_ms", "bucket_ms")}
    return Spent(org="acme", amount=amount, **(fields | changes))


async def states(client: Client) -> list[State]:
    return await read_counters(client, "acme", [a_take(), an_endless_take(), a_rolling_take()])


async def test_counters_are_set_with_the_epoch_and_only_while_there_is_none(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters_module, "SET_BATCH", 2)
    older = spent(a_rolling_take(ago_h=2), 30)
    forgotten = spent(a_rolling_take(ago_h=8), 500)
    async with open_client(store_url) as client:
        assert await rebuilding(client, ledger_position={}) == set(range(SHARDS))
        everything = [spent(a_take(), 10), spent(an_endless_take(), 20), spent(a_rolling_take(), 1), older, forgotten]
        assert await set_counters(client, SHARD, everything)
        assert set(await read_epochs(client)) == {SHARD}
        assert await states(client) == [State(10, 0), State(20, 0), State(31, 0)]
        assert not await set_counters(client, SHARD, [spent(a_take(), 99)])
        assert await states(client) == [State(10, 0), State(20, 0), State(31, 0)]
        assert await rebuilding(client, ledger_position={}) == set(range(SHARDS)) - {SHARD}
        lives = [
            await client.call("PTTL", spent(take, 0).key) for take in (a_take(), an_endless_take(), a_rolling_take())
        ]
        assert lives[1] == -1
        assert all(life_ms > 28 * HOUR_MS for life_ms in (lives[0], lives[2]))


async def test_an_older_copy_is_set_right_and_its_holds_are_dropped(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    takes = [a_take(), an_endless_take(), a_rolling_take()]
    async with open_calls(store_url, tmp_path, probe_s=60) as store, open_client(store_url) as client:
        await store.settle(a_record("c1", cost_nusd=2), takes)
        await store.reserve(a_record("c2"), [takes])
        assert await rebuilding(client, ledger_position={}) == set()
        (entry,) = await entries(client)
        later = f"{int(entry.id.partition('-')[0]) + 1}-0"
        assert await rebuilding(client, ledger_position={SHARD: (entry.epoch, later)}) == {SHARD}
        with pytest.raises(StoreRebuilding):
            await store.reserve(a_record("c3"), [takes])
        assert await set_counters(client, SHARD, [spent(take, 5) for take in takes])
        assert (await read_epochs(client))[SHARD] != entry.epoch
        assert await states(client) == [State(5, 0)] * 3
        assert await hold_of(client, "c2") is None
        await store._renew()
        assert await states(client) == [State(5, 1)] * 3


async def test_a_seed_is_added_once_for_each_counter_and_sub_bucket(store_url: str, tmp_path: Path) -> None:
    older = a_rolling_take(ago_h=3)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        with pytest.raises(StoreRebuilding):
            await seed(client, spent(a_take(), 7))
        await begin_epochs(store_url)
        await store.settle(a_record("c1", cost_nusd=2), [a_take(), an_endless_take(), a_rolling_take()])
        await store.reserve(a_record("c2"), [[a_rolling_take()]])  # the sum of a rolling window is cached now
        for added in (True, False):
            for take in (a_take(), an_endless_take(), a_rolling_take(), older):
                assert await seed(client, spent(take, 7)) is added
        assert await states(client) == [State(9, 0), State(9, 0), State(16, 1)]
        assert (await store.reserve(a_record("c3"), [[a_rolling_take()]])).states == [State(16, 1)]
        assert await client.call("PTTL", spent(a_take(), 0).key) > 0
        assert await client.call("PTTL", spent(an_endless_take(), 0).key) == -1


async def test_counters_that_nobody_used_stand_at_nothing(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters_module, "READ_BATCH", 2)
    unknown = [
        msgspec.structs.replace(take, counter="unused") for take in (a_take(), an_endless_take(), a_rolling_take())
    ]
    async with open_client(store_url) as client:
        assert await read_counters(client, "acme", unknown) == [State(0, 0)] * 3
        assert await read_counters(client, "acme", []) == []
        assert KEYS[SHARD].prefix in spent(a_take(), 0).key
