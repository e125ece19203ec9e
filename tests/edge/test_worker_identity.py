"""A worker settles into the store of its own ledger, and into no other."""

from __future__ import annotations

import pytest

from proxy.store.errors import StoreForeign
from proxy.store.identity import claim
from proxy.store.keyspace import IDENTITY
from tests.support.scripted import scripted
from tests.support.store import eventually, open_client
from tests.support.worker import SECRET, policy, serving


async def nobody(*_: object) -> None:
    """A provider that is never called."""


async def test_a_worker_does_not_serve_on_a_store_that_belongs_to_another_ledger(store_url: str) -> None:
    async with open_client(store_url) as client, scripted(nobody) as url:
        await claim(client, ledger_id="of somebody else", secrets=[SECRET])
        with pytest.raises(StoreForeign, match="belongs to another ledger"):
            async with serving(store_url, policy(url)):
                pass


async def test_a_worker_claims_the_store_with_the_id_that_its_ledger_tells(store_url: str) -> None:
    async with open_client(store_url) as client, scripted(nobody) as url, serving(store_url, policy(url)) as edge:
        owner = await client.call("HGET", IDENTITY, "ledger")
        assert owner.decode() == edge.worker.identity.ledger_id != ""


async def test_a_worker_whose_store_changes_hands_sends_nothing_more(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.store.client.CLAIM_S", 0.01)
    async with open_client(store_url) as client, scripted(nobody) as url, serving(store_url, policy(url)) as edge:
        await client.call("HSET", IDENTITY, "ledger", "of somebody else")
        assert "belongs to another ledger" in await edge.worker.client.until_foreign()
        await eventually(lambda: not edge.worker.store.healthy)
