from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from proxy.core.record import decode
from proxy.store import calls as calls_module
from proxy.store.calls import CallStore, StoreUnavailable
from proxy.store.client import Client
from proxy.store.errors import StoreRebuilding, StoreRefused
from proxy.store.keyspace import KEYS, shard_of
from proxy.store.spool import Spool, framed
from proxy.store.sweeper import Sweeper
from tests.support.store import (
    a_record,
    begin_epochs,
    entries,
    eventually,
    hold_of,
    now_ms,
    open_calls,
    open_client,
    written,
)
from tests.support.valkey import RunningServer


async def test_a_settled_call_is_in_the_stream_once_and_its_hold_is_gone(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"))
        assert store.running() == 1
        assert await hold_of(client, "c1") is not None
        await store.settle(a_record("c1", cost_nusd=7))
        assert store.running() == 0
        assert await hold_of(client, "c1") is None
        assert await client.call("HLEN", KEYS[shard_of("acme")].drafts) == 0
        (entry,) = await entries(client)
    assert (entry.shard, entry.revision, decode(entry.data).cost_nusd) == (shard_of("acme"), 1, 7)


async def test_a_call_that_never_was_reserved_is_recorded_all_the_same(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.settle(a_record("c1", result="refused", refusal="key_expired"))
        assert await written(client) == {("c1", 1): 1}


async def test_settling_twice_writes_one_record(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await asyncio.gather(*[store.settle(a_record("c1")) for _ in range(5)])
        assert await written(client) == {("c1", 1): 1}


async def test_a_later_revision_is_written_once_too(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        for revision in (1, 2, 2, 1):
            await store.settle(a_record("c1", revision=revision))
        assert await written(client) == {("c1", 1): 1, ("c1", 2): 1}


async def test_a_released_call_leaves_neither_hold_nor_record(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"))
        await store.release("c1", "acme")
        assert (store.running(), await hold_of(client, "c1"), await written(client)) == (0, None, {})


async def test_orgs_of_different_shards_have_streams_of_their_own(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    orgs = [f"org-{number}" for number in range(40)]
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await asyncio.gather(*[store.settle(a_record(org, org=org)) for org in orgs])
        found = await entries(client)
    assert {decode(entry.data).org: entry.shard for entry in found} == {org: shard_of(org) for org in orgs}


async def test_a_server_killed_with_200_calls_in_flight_loses_none_and_doubles_none(
    own_valkey: RunningServer, tmp_path: Path
) -> None:
    await begin_epochs(own_valkey.url)
    names = [f"c{number}" for number in range(200)]
    async with open_calls(own_valkey.url, tmp_path, command_timeout_s=0.25) as store:

        async def call(name: str) -> None:
            try:
                await store.reserve(a_record(name))
            except StoreUnavailable:
                store.keep(a_record(name))
            await asyncio.sleep(0)
            await store.settle(a_record(name))

        running = [asyncio.create_task(call(name)) for name in names]
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        assert done
        settling = [asyncio.create_task(store.settle(a_record(f"{name}-more"))) for name in names]
        await asyncio.sleep(0)
        await own_valkey.kill()
        await asyncio.gather(*running, *settling)
        assert store.running() == 0
        assert not store.healthy
        await own_valkey.start()
        await eventually(lambda: store.healthy and store.spooled == 0)
        async with open_client(own_valkey.url) as client:
            assert await written(client) == Counter(
                {(name, 1): 1 for name in names} | {(f"{name}-more", 1): 1 for name in names}
            )
            await eventually(lambda: hold_count(client, 0))


async def hold_count(client: Client, expected: int) -> bool:
    counts = await client.pipeline(("ZCARD", keys.holds) for keys in KEYS)
    return sum(counts) == expected


async def test_a_silent_server_refuses_at_once_after_the_first_wait_and_its_settles_are_drained(
    own_valkey: RunningServer, tmp_path: Path
) -> None:
    await begin_epochs(own_valkey.url)
    async with open_calls(own_valkey.url, tmp_path, command_timeout_s=0.25) as store:
        await store.settle(a_record("before"))
        own_valkey.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match=r"0\.25 s"):
            await store.reserve(a_record("refused"))
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await store.reserve(a_record("refused too"))
        await store.settle(a_record("during"))
        assert (store.healthy, store.spooled) == (False, 1)
        assert store.degraded_since_ms is not None
        own_valkey.signal(signal.SIGCONT)
        await eventually(lambda: store.healthy and store.degraded_since_ms is None)
        await eventually(lambda: store.spooled == 0)
        assert store.drained == 1
        async with open_client(own_valkey.url) as client:
            assert await written(client) == {("before", 1): 1, ("during", 1): 1}


async def test_forgotten_scripts_are_no_trouble(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await client.call("SCRIPT", "FLUSH")
        await store.reserve(a_record("c1"))
        await store.settle(a_record("c1"))
        assert (store.spooled, await written(client)) == (0, {("c1", 1): 1})


async def test_an_emptied_store_takes_nothing_until_its_epoch_is_set_and_then_everything(
    store_url: str, tmp_path: Path
) -> None:
    before = await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.reserve(a_record("running"))
        await client.call("FLUSHALL")
        with pytest.raises(StoreRebuilding, match="is being rebuilt"):
            await store.reserve(a_record("refused"))
        await store.settle(a_record("spooled"))
        assert (store.healthy, store.spooled) == (False, 1)
        after = await begin_epochs(store_url)
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values())
        await eventually(lambda: store.healthy and store.spooled == 0)
        assert await written(client) == {("spooled", 1): 1}
        await eventually(lambda: hold_of(client, "running"))
        await store.settle(a_record("running"))
        assert await written(client) == {("spooled", 1): 1, ("running", 1): 1}


async def test_a_new_store_is_not_healthy_before_it_has_epochs(store_url: str, tmp_path: Path) -> None:
    async with open_calls(store_url, tmp_path) as store:
        assert (store.healthy, store.trouble) == (False, "The store is being rebuilt: its epoch is not set.")
        await begin_epochs(store_url)
        await eventually(lambda: store.healthy)
        assert store.trouble == ""


async def test_a_full_store_has_its_records_spooled_until_there_is_room(
    own_valkey: RunningServer, tmp_path: Path
) -> None:
    await begin_epochs(own_valkey.url)
    async with open_calls(own_valkey.url, tmp_path) as store, open_client(own_valkey.url) as client:
        await store.reserve(a_record("c1"))
        await client.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="full"):
            await store.reserve(a_record("c2"))
        await store.settle(a_record("c1"))
        await eventually(lambda: not store.healthy and store.spooled == 1)
        assert "full" in store.trouble
        await client.call("CONFIG", "SET", "maxmemory", "0")
        await eventually(lambda: store.healthy and store.spooled == 0)
        assert await written(client) == {("c1", 1): 1}
        assert await hold_count(client, 0)


async def test_a_running_call_keeps_its_hold(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with (
        open_calls(store_url, tmp_path, hold_life_ms=60_000, renew_s=0.02) as store,
        open_client(store_url) as client,
    ):
        await store.reserve(a_record("c1"))
        first = await hold_of(client, "c1")
        assert first is not None

        async def renewed() -> bool:
            score = await hold_of(client, "c1")
            return score is not None and int(score) > int(first)

        await eventually(renewed)


async def test_a_hold_that_is_gone_is_registered_again_with_its_draft(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    keys = KEYS[shard_of("acme")]
    async with open_calls(store_url, tmp_path, renew_s=0.02) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1", hold_nusd=5))
        await client.pipeline([("ZREM", keys.holds, "c1"), ("HDEL", keys.drafts, "c1", "c1:takes")])
        await eventually(lambda: hold_of(client, "c1"))
        assert decode(await client.call("HGET", keys.drafts, "c1")).hold_nusd == 5


async def test_a_call_that_runs_without_the_store_gets_its_hold_when_it_is_back(
    own_valkey: RunningServer, tmp_path: Path
) -> None:
    await begin_epochs(own_valkey.url)
    async with open_calls(own_valkey.url, tmp_path) as store:
        await own_valkey.kill()
        with pytest.raises(StoreUnavailable):
            await store.reserve(a_record("c1"))
        assert store.running() == 0
        store.keep(a_record("c1"))
        assert store.running() == 1
        await own_valkey.start()
        async with open_client(own_valkey.url) as client:
            await eventually(lambda: hold_of(client, "c1"))


async def test_a_reserve_that_arrives_after_its_settle_holds_nothing(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.settle(a_record("c1"))
        await store.reserve(a_record("c1"))
        assert await hold_of(client, "c1") is None


async def test_a_settle_after_the_call_was_given_up_is_revision_2_and_so_on(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path, hold_life_ms=1) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"))
        await eventually(lambda: give_up(client))
        assert await written(client) == {("c1", 1): 1}
        await store.settle(a_record("c1"))
        await store.settle(a_record("c1"))
        assert await written(client) == {("c1", 1): 1, ("c1", 2): 1}
        await store.settle(a_record("c1", revision=2))  # a background answer, as its maker counts
        results = {entry.revision: decode(entry.data).result for entry in await entries(client)}
    assert results == {1: "lost", 2: "ok", 3: "ok"}


async def give_up(client: Client) -> int:
    return await Sweeper(client, hold_life_ms=1).sweep()


async def test_a_lost_call_that_still_runs_holds_again_and_is_lost_only_once(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    async with open_calls(store_url, tmp_path, hold_life_ms=1, renew_s=0.01) as store, open_client(store_url) as client:
        await store.reserve(a_record("c1"))
        await eventually(lambda: give_up(client))
        await eventually(lambda: hold_of(client, "c1"))
        assert await give_up(client) == 0
        await store.settle(a_record("c1"))
        assert await written(client) == {("c1", 1): 1, ("c1", 2): 1}


async def test_the_spool_of_a_dead_process_is_drained_by_another(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    lines = [framed(b'{"owed":"record","record":' + encoded(f"c{number}") + b"}") for number in range(250)]
    (tmp_path / "1-dead.spool").write_bytes(b"".join(lines) + lines[0][:20])
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await eventually(lambda: store.drained == 250)
        assert await written(client) == {(f"c{number}", 1): 1 for number in range(250)}
        await eventually(lambda: not list(tmp_path.iterdir()))


def encoded(call_id: str) -> bytes:
    return calls_module.records.encode(a_record(call_id))


async def test_what_was_spooled_before_a_restart_is_settled_after_it(own_valkey: RunningServer, tmp_path: Path) -> None:
    await begin_epochs(own_valkey.url)
    async with open_calls(own_valkey.url, tmp_path) as store:
        await own_valkey.kill()
        await store.settle(a_record("c1"))
    assert len(list(tmp_path.iterdir())) == 1
    await own_valkey.start()
    async with open_calls(own_valkey.url, tmp_path) as store, open_client(own_valkey.url) as client:
        await eventually(lambda: store.drained == 1)
        assert await written(client) == {("c1", 1): 1}


async def test_a_spooled_line_that_no_store_takes_is_set_aside(store_url: str, tmp_path: Path) -> None:
    await begin_epochs(store_url)
    good = framed(b'{"owed":"record","record":' + encoded("c1") + b"}")
    (tmp_path / "1-dead.spool").write_bytes(framed(b'{"owed":"nothing we know"}') + good)
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await eventually(lambda: store.drained and not list(tmp_path.glob("*.spool")))
        assert await written(client) == {("c1", 1): 1}
    assert (tmp_path / "set-aside.lines").read_bytes() == b'{"owed":"nothing we know"}\n'


async def test_records_wait_in_memory_when_the_spool_fails_too(
    own_valkey: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin_epochs(own_valkey.url)
    async with open_calls(own_valkey.url, tmp_path) as store:
        await own_valkey.kill()
        with monkeypatch.context() as patch:

            def full(descriptor: int) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr("os.fsync", full)
            await store.settle(a_record("c1"))
        assert store.spooled == 1
        await own_valkey.start()
        await eventually(lambda: store.spooled == 0)
        async with open_client(own_valkey.url) as client:
            assert await written(client) == {("c1", 1): 1}


async def test_a_release_and_a_later_answer_are_owed_like_records(own_valkey: RunningServer, tmp_path: Path) -> None:
    await begin_epochs(own_valkey.url)
    async with open_calls(own_valkey.url, tmp_path) as store:
        await store.reserve(a_record("c1"))
        await own_valkey.kill()
        await store.release("c1", "acme")
        await store.remember_later("acme", "openai", "batch_1", a_record("c2"))
        assert await store.recall_later("acme", "openai", "batch_1") is None
        await own_valkey.start()
        await eventually(lambda: store.healthy and store.spooled == 0)
        found = await store.recall_later("acme", "openai", "batch_1")
        assert found is not None
        assert found.call_id == "c2"
        async with open_client(own_valkey.url) as client:
            assert await hold_of(client, "c1") is None


async def test_a_worker_starts_while_the_store_is_away(own_valkey: RunningServer, tmp_path: Path) -> None:
    await begin_epochs(own_valkey.url)
    await own_valkey.kill()
    async with open_calls(own_valkey.url, tmp_path) as store:
        assert "cannot be reached" in store.trouble
        await store.settle(a_record("c1"))
        await own_valkey.start()
        await eventually(lambda: store.healthy and store.spooled == 0)


async def test_a_worker_does_not_start_without_the_stores_password(own_valkey: RunningServer, tmp_path: Path) -> None:
    await own_valkey.ask("CONFIG", "SET", "requirepass", "secret")
    store = CallStore(Client(own_valkey.url), Spool(tmp_path), clock_ms=now_ms)
    with pytest.raises(StoreRefused, match="needs a password"):
        await store.open()
    await store.close()
    async with open_client(f"unix://:secret@{own_valkey.socket}") as client:
        await client.call("CONFIG", "SET", "requirepass", "")
