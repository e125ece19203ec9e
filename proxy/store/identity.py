"""A store remembers which ledger and which secret belong to it, so that two installations cannot share one by mistake:
they would settle into each other's books, or refuse each other's keys."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from .errors import StoreForeign, StoreUnavailable
from .keyspace import IDENTITY
from .packing import Argument

if TYPE_CHECKING:
    from .client import Client

CHECK_DIGITS = 16
"""64 bits: enough to tell secrets apart, and nothing of the secret can be learned from them."""

Send = Callable[[tuple[Argument, ...]], Awaitable[Any]]


def secret_check(secret: bytes) -> str:
    """A value by which a secret is recognized, without telling it."""
    return hmac.new(secret, b"callmeter store", hashlib.sha256).hexdigest()[:CHECK_DIGITS]


class Identity:
    """Who we are towards the store. A client that has one claims the store with it on every connection, before anything
    else can be sent there.

    secrets     the one in use and those being rotated out
    ledger_id   of the ledger whose records go through the store; empty while its database has not told
    """

    def __init__(self, secrets: Sequence[bytes], ledger_id: str = "") -> None:
        self.ledger_id = ledger_id
        self._checks = [secret_check(secret) for secret in secrets]

    def check_known(self) -> None:
        """Raises StoreUnavailable while we do not know which ledger is ours, and so not which store."""
        if not self.ledger_id:
            raise StoreUnavailable(
                "The store is not used yet: the ledger, which cannot be reached, must first tell whether it is its own."
            )

    async def claim(self, send: Send, shown: str) -> None:
        """Makes the store ours, or sees that it is already. `send` sends one command, `shown` is the store's address.

        Raises StoreForeign where the store belongs to another ledger or secret, StoreUnavailable where it is away.
        """
        self.check_known()
        # Read first: a store that is full takes no write, and must be ours again all the same, to be emptied.
        ledger, check = await send(("HMGET", IDENTITY, "ledger", "secret"))
        if ledger is None or check is None:
            _, _, (ledger, check) = await asyncio.gather(
                send(("HSETNX", IDENTITY, "ledger", self.ledger_id)),
                send(("HSETNX", IDENTITY, "secret", self._checks[0])),
                send(("HMGET", IDENTITY, "ledger", "secret")),
            )
        if ledger.decode() != self.ledger_id:
            raise StoreForeign(
                f"The store at {shown} belongs to another ledger; point --redis-url (CALLMETER_REDIS_URL) at a store of"
                " its own, or CALLMETER_LEDGER_URL at the ledger it belongs to"
            )
        if check.decode() not in self._checks:
            raise StoreForeign(
                f"The store at {shown} belongs to another CALLMETER_SECRET; start with that one, or with"
                " CALLMETER_SECRET=new,old to change it"
            )
        if check.decode() != self._checks[0]:
            try:
                await send(("HSET", IDENTITY, "secret", self._checks[0]))
            except StoreUnavailable:
                pass  # it is full or going away; the next claim tries again


async def claim(client: Client, *, ledger_id: str, secrets: Sequence[bytes]) -> None:
    """Identity.claim over a client that is connected already. Raises StoreUnavailable also where it is not."""
    await Identity(secrets, ledger_id).claim(lambda command: client.send(*command), client.address.shown)
