"""A store remembers which ledger and which secret belong to it, so that two installations cannot share one by mistake:
they would settle into each other's books, or refuse each other's keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from .client import Client
from .errors import StoreRefused
from .keyspace import IDENTITY

CHECK_DIGITS = 16
"""64 bits: enough to tell secrets apart, and nothing of the secret can be learned from them."""


def secret_check(secret: bytes) -> str:
    """A value by which a secret is recognized, without telling it."""
    return hmac.new(secret, b"callmeter store", hashlib.sha256).hexdigest()[:CHECK_DIGITS]


async def claim(client: Client, *, ledger_id: str, secrets: Sequence[bytes]) -> None:
    """Makes the store ours, or sees that it is already. `secrets` are the one in use and those being rotated out.

    Raises StoreRefused where the store belongs to another ledger or secret, StoreUnavailable where it is away.
    """
    checks = [secret_check(secret) for secret in secrets]
    _, _, ledger, check = await client.pipeline(
        [
            ("HSETNX", IDENTITY, "ledger", ledger_id),
            ("HSETNX", IDENTITY, "secret", checks[0]),
            ("HGET", IDENTITY, "ledger"),
            ("HGET", IDENTITY, "secret"),
        ]
    )
    shown = client.address.shown
    if ledger.decode() != ledger_id:
        raise StoreRefused(
            f"The store at {shown} belongs to another ledger; point --redis-url (CALLMETER_REDIS_URL) at a store of"
            " its own, or CALLMETER_LEDGER_URL at the ledger it belongs to"
        )
    if check.decode() not in checks:
        raise StoreRefused(
            f"The store at {shown} belongs to another CALLMETER_SECRET; start with that one, or with"
            " CALLMETER_SECRET=new,old to change it"
        )
    if check.decode() != checks[0]:
        await client.call("HSET", IDENTITY, "secret", checks[0])
