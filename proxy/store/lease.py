"""Lease: of several bookkeepers on one store, one is active and the others stand by."""

from __future__ import annotations

import time

from .client import Client
from .errors import StoreError

LEASE = "callmeter:bookkeeper"
LIFE_S = 10.0
"""A bookkeeper that was killed is replaced by another host's after this long; its own successor waits as long unless
it left cleanly. Renewed three times as often."""
RENEW_S = LIFE_S / 3


class LeaseLost(RuntimeError):
    """Another bookkeeper may be active by now: what was begun must not be written."""


class Lease:
    """`holder` names the process that wants it, and nobody else ever. `predecessor` is the name of one that is known to
    be dead: its lease is taken over at once."""

    def __init__(self, client: Client, holder: str, predecessor: str = "") -> None:
        self._client = client
        self._holder = holder
        self._predecessor = predecessor
        self._until_s = 0.0

    @property
    def held(self) -> bool:
        return time.monotonic() < self._until_s

    async def renew(self) -> bool:
        """Takes or prolongs it; True while it is held. Raises StoreError; an own lease then still runs its time."""
        asked_s = time.monotonic()
        if await self._client.script("lease", (LEASE,), (self._holder, int(LIFE_S * 1000), self._predecessor)):
            # A little less than the store grants: our clock and its may run apart, and the fence must fall first.
            self._until_s = asked_s + LIFE_S * 0.9
            return True
        self._until_s = 0.0
        return False

    def check(self) -> None:
        """The fence of a SQL transaction. Raises LeaseLost."""
        if not self.held:
            raise LeaseLost("the bookkeeper's lease has run out")

    async def leave(self) -> None:
        """Gives it back, so that another one need not wait."""
        if self.held:
            self._until_s = 0.0
            try:
                await self._client.call("DEL", LEASE)
            except StoreError:
                pass  # it runs out by itself
