from __future__ import annotations

from pathlib import Path

from proxy.store.keyspace import KEYS, shard_of
from proxy.store.later import LATER_LIFE_MS
from tests.support.store import a_record, open_calls, open_client


async def test_who_made_a_call_is_remembered_by_org_and_upstream(store_url: str, tmp_path: Path) -> None:
    async with open_calls(store_url, tmp_path) as store:
        record = a_record("c1", task="T-1")
        await store.remember_later("acme", "openai", "batch_1", record)
        assert await store.recall_later("acme", "openai", "batch_1") == record
        for stranger in (("globex", "openai"), ("acme", "anthropic")):
            assert await store.recall_later(*stranger, "batch_1") is None


async def test_it_is_forgotten_when_no_provider_keeps_the_answer_any_more(store_url: str, tmp_path: Path) -> None:
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.remember_later("acme", "openai", "batch_1", a_record("c1"))
        left_ms = await client.call("PTTL", KEYS[shard_of("acme")].later("openai", "batch_1"))
    assert 0 < left_ms <= LATER_LIFE_MS


async def test_an_id_of_any_length_is_fine(store_url: str, tmp_path: Path) -> None:
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await store.remember_later("acme", "openai", "x" * 10_000, a_record("c1"))
        assert await store.recall_later("acme", "openai", "x" * 10_000) is not None
        assert max(map(len, await client.call("KEYS", "*"))) < 300


async def test_a_record_of_a_newer_version_is_not_known(store_url: str, tmp_path: Path) -> None:
    async with open_calls(store_url, tmp_path) as store, open_client(store_url) as client:
        await client.call("SET", KEYS[shard_of("acme")].later("openai", "batch_1"), b'{"call":"in another shape"}')
        assert await store.recall_later("acme", "openai", "batch_1") is None
