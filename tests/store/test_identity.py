from __future__ import annotations

import pytest

from proxy.store.errors import StoreRefused
from proxy.store.identity import claim, secret_check
from tests.support.store import open_client

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
