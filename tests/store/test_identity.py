from __future__ import annotations

import pytest

from proxy.store.client import Client
from proxy.store.errors import StoreForeign, StoreRefused, StoreUnavailable
from proxy.store.identity import Identity, claim, secret_check
from proxy.store.keyspace import IDENTITY
from tests.support.store import open_client
from tests.support.valkey import RunningServer

OLD, NEW = b"an old secret, long enough", b"a new secret, long enough"


async def test_a_store_stays_with_the_ledger_that_claimed_it_first(store_url: str) -> None:
    async with open_client(store_url) as client:
        await claim(client, ledger_id="one", secrets=[OLD])
        await claim(client, ledger_id="one", secrets=[OLD])
        with pytest.raises(StoreRefused, match="belongs to another ledger"):
            await claim(client, ledger_id="two", secrets=[OLD])


async def test_another_secret_is_refused_and_a_rotated_one_is_not(store_url: str) -> None:
    async with open_client(store_url) as client:
        await claim(client, ledger_id="one", secrets=[OLD])
        with pytest.raises(StoreRefused, match="another CALLMETER_SECRET"):
            await claim(client, ledger_id="one", secrets=[NEW])
        await claim(client, ledger_id="one", secrets=[NEW, OLD])
        await claim(client, ledger_id="one", secrets=[NEW])
        with pytest.raises(StoreRefused):
            await claim(client, ledger_id="one", secrets=[OLD])


def test_a_check_value_tells_secrets_apart_and_tells_nothing_of_them() -> None:
    assert secret_check(OLD) == secret_check(OLD) != secret_check(NEW)
    assert len(secret_check(OLD)) == 16


async def test_a_client_sends_nothing_to_a_store_that_belongs_to_another_ledger(store_url: str) -> None:
    async with open_client(store_url, identity=Identity([OLD], "one")):
        pass
    stranger = Client(store_url, identity=Identity([OLD], "two"))
    with pytest.raises(StoreForeign, match="belongs to another ledger"):
        await stranger.open()
    with pytest.raises(StoreUnavailable):
        stranger.send("PING")


async def test_a_client_waits_until_it_knows_its_ledger(store_url: str) -> None:
    identity = Identity([OLD])
    client = Client(store_url, identity=identity)
    with pytest.raises(StoreUnavailable, match="ledger"):
        await client.open()
    identity.ledger_id = "one"
    await client.until_up()
    assert await client.call("HGET", IDENTITY, "ledger") == b"one"
    await client.close()


async def test_a_store_that_changed_hands_while_the_connection_was_lost_gets_nothing_more(store_url: str) -> None:
    async with open_client(store_url) as other, open_client(store_url, identity=Identity([OLD], "one")) as ours:
        await other.call("FLUSHALL")
        await claim(other, ledger_id="two", secrets=[OLD])
        await other.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert "belongs to another ledger" in await ours.until_foreign()
        with pytest.raises(StoreUnavailable):
            ours.send("PING")


async def test_a_store_that_changed_hands_under_a_connection_is_noticed(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.store.client.CLAIM_S", 0.01)
    async with open_client(store_url) as other, open_client(store_url, identity=Identity([OLD], "one")) as ours:
        await other.call("DEL", IDENTITY)
        await claim(other, ledger_id="two", secrets=[OLD])
        await ours.until_foreign()
        assert not ours.up


async def test_a_blocking_connection_claims_too(store_url: str) -> None:
    async with open_client(store_url, identity=Identity([OLD], "one")) as ours:
        await ours.call("HSET", IDENTITY, "ledger", "two")
        with pytest.raises(StoreForeign):
            await ours.for_blocking(0.1).open()


async def test_a_full_store_that_is_ours_is_still_ours(own_valkey: RunningServer) -> None:
    async with open_client(own_valkey.url, identity=Identity([OLD], "one")) as ours:
        await ours.call("CONFIG", "SET", "maxmemory", "1")
    async with open_client(own_valkey.url, identity=Identity([NEW, OLD], "one")) as ours:
        assert await ours.call("PING") == b"PONG"
