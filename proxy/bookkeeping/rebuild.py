"""Rebuild: counters are set from the ledger where the store lost them, and seeded where a budget is new."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ..core import later
from ..core.policy import Policy
from ..core.record import decode
from ..ledger.budgets import Seeding
from ..ledger.database import Ledger
from ..ledger.entry import Entry
from ..store import counters
from ..store.client import Client
from ..store.epoch import rebuilding
from ..store.keyspace import KEYS, SHARDS, shard_of
from ..store.later import hold as hold_later
from ..store.ledger_stream import Entry as StreamEntry
from ..store.ledger_stream import entry_of
from .arrears import YOUNG_MS, Arrears, Young, arrears_of
from .spent import amounts, spent_before, spent_now

DRAIN_RECORDS = 1_000
"""Records of a stream that are taken into the ledger at once before its counters are counted."""
SEED_AT_ONCE = 200
"""Counters that are seeded in one write."""

log = logging.getLogger("callmeter.bookkeeper")


class CounterKeeper:
    """Looks after the counters of all shards. Every method raises StoreError and LedgerUnavailable; what was begun is
    begun again then, and nothing is counted twice.

    take        takes records of a stream into the ledger, without moving its place there
    in_writer   runs work where nothing is written into the ledger meanwhile
    """

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        *,
        policy: Callable[[], Policy],
        take: Callable[[Sequence[StreamEntry]], Awaitable[None]],
        in_writer: Callable[[Callable[[], Any]], Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._policy = policy
        self._take = take
        self._in_writer = in_writer
        self._noted: Policy | None = None
        self._young: list[Young] = []
        self._counted: dict[Seeding, list[counters.Spent]] = {}
        self.rebuilding: set[int] = set()
        """Shards without an epoch: they take nothing, and their calls are decided as `store_outage` says."""

    async def look(self, known: Mapping[int, tuple[str, str]]) -> None:
        """Sets the counters of shards that have none and begins their epochs; then sees whether a budget is new.
        `known`: shard -> epoch and stream id up to which the ledger has read. Cheap where there is nothing to do."""
        self.rebuilding = await rebuilding(self._client, ledger_position=known)
        if self.rebuilding:
            await self._rebuild(sorted(self.rebuilding))
            self.rebuilding = set()
        policy = self._policy()
        if policy is not self._noted:
            await self._seed(policy)
            self._noted = policy

    async def _rebuild(self, shards: Sequence[int]) -> None:
        drained = [await self._drain(shard) for shard in shards]
        policy, now_ms = self._policy(), await self._now_ms()
        identities = {budget.identity for budget in policy.counted}

        def count() -> dict[int, list[counters.Spent]]:
            self._ledger.budgets.in_force(identities, now_ms)
            self._ledger.budgets.rebuilding(shards)
            found = spent_now(self._ledger.spending, policy.counted, policy.upstreams, now_ms)
            by_shard: dict[int, list[counters.Spent]] = {shard: [] for shard in shards}
            for spent in amounts(found, keep=by_shard.__contains__):
                by_shard[shard_of(spent.org)].append(spent)
            return by_shard

        by_shard = await asyncio.to_thread(count)
        for shard, spent in by_shard.items():
            await counters.set_counters(self._client, shard, spent)
        await self._hold_waiting(policy, shards, now_ms)
        if total := sum(map(len, by_shard.values())):
            log.warning(
                "the store was rebuilt: %d counters are set from the ledger, %d records were still on their way there",
                total,
                sum(drained),
            )

    async def _hold_waiting(self, policy: Policy, shards: Sequence[int], now_ms: int) -> None:
        """Holds again what calls will cost that wait for a retrieval: no worker knows of those."""
        for data in await asyncio.to_thread(self._ledger.spending.waiting, now_ms - later.HELD_MS):
            made = decode(data)
            life_ms = made.at_ms + later.HELD_MS - now_ms
            if shard_of(made.org) in shards and made.estimate.get("later") is True and life_ms > 0:
                await hold_later(self._client, made, later.takes_of(made, (), policy), life_ms)

    async def _drain(self, shard: int) -> int:
        """Takes what is left in a stream into the ledger. Nothing is added to it while the epoch is missing."""
        key, after, count = KEYS[shard].records, "-", 0
        while rows := await self._client.call("XRANGE", key, after, "+", "COUNT", str(DRAIN_RECORDS)):
            await self._take([entry_of(shard, "", stream_id, fields)[1] for stream_id, fields in rows])
            count += len(rows)
            after = "(" + rows[-1][0].decode()
        return count

    async def _seed(self, policy: Policy) -> None:
        now_ms = await self._now_ms()
        counted = await self._in_writer(lambda: self._count_new(policy, now_ms))
        for seeding, spent in counted.items():
            for start in range(0, len(spent), SEED_AT_ONCE):
                # The name tells this time in force from earlier ones of the same identity.
                seeds = [
                    counters.seed(self._client, each, f"seed{seeding.since_ms}")
                    for each in spent[start : start + SEED_AT_ONCE]
                ]
                await asyncio.gather(*seeds)
            if spent:
                log.info("%s is new; %d of its counters begin with what was spent", seeding.identity, len(spent))
        if counted:
            await asyncio.to_thread(self._ledger.budgets.seeded, [seeding.identity for seeding in counted])
            self._counted = {}

    def _count_new(self, policy: Policy, now_ms: int) -> dict[Seeding, list[counters.Spent]]:
        """What the counters of new budgets begin with. In the writing thread, between two batches: what the ledger
        learns after this is looked at one by one (arrears.py). Counted once, also where the store is away then."""
        budgets = {budget.identity: budget for budget in policy.counted}
        pending = self._ledger.budgets.in_force(list(budgets), now_ms)
        versions = {young.budget.identity: young.versions for young in self._young}
        self._young = [
            Young(budgets[identity], since_ms, versions.get(identity, frozenset()) | {policy.version})
            for identity, since_ms in self._ledger.budgets.came_after(now_ms - YOUNG_MS)
            if identity in budgets
        ]
        for seeding in pending:
            if seeding not in self._counted and len(seeding.rebuilt) < SHARDS:
                budget = budgets[seeding.identity]
                found = spent_before(
                    self._ledger.spending, budget, seeding, policy.upstreams, now_ms=now_ms, version=policy.version
                )
                lacking = frozenset(range(SHARDS)) - seeding.rebuilt
                self._counted[seeding] = amounts(found, keep=lacking.__contains__)
        return {seeding: self._counted.get(seeding, []) for seeding in pending}

    # -- what the ledger learns late ---------------------------------------------------------------------------------

    def arrears(self, entries: Sequence[Entry]) -> Arrears:
        """What counters lack of records that the ledger is about to take. In the writing thread."""
        return arrears_of(entries, self._ledger, self._young, self._policy().upstreams, time.time_ns() // 1_000_000)

    async def pay(self, arrears: Arrears) -> None:
        """Raises StoreError; may be repeated."""
        await arrears.pay(self._client)

    async def _now_ms(self) -> int:
        """By the clock of the store, which says what window it is."""
        seconds, micros = await self._client.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000
