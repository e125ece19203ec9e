"""Of several bookkeepers on one store one is active, and who takes its place need not wait where it is known dead."""

from __future__ import annotations

import pytest

from proxy.store.lease import Lease, LeaseLost
from tests.support.store import open_client


async def test_one_holder_at_a_time(store_url: str) -> None:
    async with open_client(store_url) as client:
        first, second = Lease(client, "first"), Lease(client, "second")
        assert await first.renew()
        assert not await second.renew()
        assert await first.renew()
        with pytest.raises(LeaseLost):
            second.check()
        await first.leave()
        assert await second.renew()


async def test_a_successor_takes_over_at_once_from_one_that_is_dead(store_url: str) -> None:
    async with open_client(store_url) as client:
        assert await Lease(client, "dead").renew()
        successor = Lease(client, "next", predecessor="dead")
        assert await successor.renew()
        assert not await Lease(client, "third").renew()
        assert await successor.renew()


async def test_two_with_a_copy_of_the_same_past_are_never_both_active(store_url: str) -> None:
    async with open_client(store_url) as client:
        assert await Lease(client, "past").renew()
        one, other = Lease(client, "one", predecessor="past"), Lease(client, "other", predecessor="past")
        assert (await one.renew(), await other.renew(), await one.renew()) == (True, False, True)
